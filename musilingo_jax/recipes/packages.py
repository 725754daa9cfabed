"""The packages whose recordings are learnt from, or left out to measure with.

Debian 12's, by version and SHA-256. `recordings.py` fetches them.
"""

from dataclasses import dataclass

LEARN, LEFT_OUT = "learn", "left out"


@dataclass(frozen=True)
class Package:
    """A package with music, or with speech alone, in it.

    Attributes:
      name, version: Debian's.
      sha256: of the package's file.
      licence: of its recordings; its authors are in the list that is kept beside it.
      music: pattern of the paths of its songs; `*` matches folders, too; "" for none.
      role: `LEARN` or `LEFT_OUT`.
      speech: pattern of the paths of recordings of people who speak, if it has some.
        Prompts of telephones, and letters that people of many countries say, are here
        for the speech alone.
      charts: pattern of the paths of MIDI files that follow its songs, if it has some.
    """

    name: str
    version: str
    sha256: str
    licence: str
    music: str
    role: str = LEARN
    speech: str = ""
    charts: str = ""


PACKAGES = (
    Package(
        "ardentryst",
        "1.71-9",
        "7a01180285a4acaa980b18118127c60ac0377f4e2bcd69244b1feb7de5fc566f",
        "CC-BY-SA-3.0",
        "*/Music/*",
    ),
    Package(
        "asc-music",
        "1.3-6",
        "369f2d396adb8db9003ef73b797d529e284a7764a5ff4b59a50a4c8b9294da5f",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "asterisk-core-sounds-en-wav",
        "1.6.1-1",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        "CC-BY-SA-3.0",
        music="",
        speech="*/sounds/*[a-z].wav",
    ),
    Package(
        "asterisk-core-sounds-es-wav",
        "1.6.1-1",
        "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903",
        "CC-BY-SA-3.0",
        music="",
        speech="*/sounds/*[a-z].wav",
    ),
    Package(
        "asterisk-core-sounds-fr-wav",
        "1.6.1-1",
        "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
        "CC-BY-SA-3.0",
        music="",
        speech="*/sounds/*[a-z].wav",
    ),
    Package(
        "asterisk-core-sounds-it-wav",
        "1.6.1-1",
        "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
        "CC-BY-3.0",
        music="",
        speech="*/sounds/*[a-z].wav",
    ),
    Package(
        "asterisk-core-sounds-ru-wav",
        "1.6.1-1",
        "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
        "CC-BY-3.0",
        music="",
        role=LEFT_OUT,
        speech="*/sounds/*[a-z].wav",
    ),
    Package(
        "berusky2-data",
        "0.12-2",
        "4bea6d7deb6c854e498a6346ff5ef7f8390591e42ad9fe9fdc5fd702bc809570",
        "GPL-2+",
        "*usic*",
    ),
    Package(
        "colobot-common-sounds",
        "0.2.0-2",
        "819e799542eac69c95b072567b5584eb3e0b2bb900de13efa3684915747b1644",
        "GPL-3+",
        "*/music/*",
    ),
    Package(
        "drascula-music",
        "1.0+ds4-2",
        "340e0beb1bacf005cbabebc07ebdd88adf6aee363d437f8a7d73cb0c77a93e79",
        "Drascula's own, like BSD",
        "*/audio/*",
        LEFT_OUT,
    ),
    Package(
        "extremetuxracer-data",
        "0.8.2-1",
        "8ce6c82e6fb89549d284f43f6c4b0a9d82e6c0e5da753bee0ef419276a21470c",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "fillets-ng-data",
        "1.0.1-1.1",
        "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "flare-game",
        "1.14-1",
        "4ab6a8298276013d35a0806257e130d992761af1b749041433b409c3dafec508",
        "CC-BY-SA-3.0+",
        "*/music/*",
    ),
    Package(
        "freedroidrpg-data",
        "1.0-1",
        "16c3cfeb82b1ec20c98493bbe1de2e356bd1aec832845630a5a7f12e303baa2b",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "fretsonfire-songs-muldjord",
        "2.dfsg-2.1",
        "b37adf8b08b46d4182c283e760e4f40622d83674e05803960ea1e11a92600c7b",
        "CC-BY-SA-3.0",
        "*/song.ogg",
        LEFT_OUT,
        charts="*/notes.mid",
    ),
    Package(
        "hedgewars-data",
        "1.0.2-6",
        "722225903a72604403e6e0026e40e9a6953f47a74d94efc5f55504bc05bb4761",
        "GPL-2, GFDL-1.3",
        "*/Music/*",
        speech="*/voices/*",
    ),
    Package(
        "klettres-data",
        "4:22.12.3-1",
        "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8",
        "GPL-2+",
        music="",
        speech="*/klettres/*",
    ),
    Package(
        "lugaru-data",
        "1.2-6",
        "6a25e8d2d7c2d94b7873669d1f52137b2ba56e86ba5c2f08fefeacd65e526023",
        "CC-BY-SA-3.0, by file",
        "*/Sounds/*",
    ),
    Package(
        "marsshooter-data",
        "0.7.6-7",
        "b8d040a9739434f2be96bbf9b38f0743d56d59b853647b2242f9357e38394951",
        "CC-BY-SA-3.0",
        "*/music/*",
        LEFT_OUT,
    ),
    Package(
        "megaglest-data",
        "3.13.0-3",
        "ed4783d9fc78e201a548b266f7c30325eb16cfd58a20bf4597dd6e622f84a07e",
        "CC-BY-SA-3.0",
        "*music*",
    ),
    Package(
        "naev-data",
        "0.8.2-1",
        "a98849cacdfc72779e03ceb68f32af03cb3c3f382ba8b82e3299ef87254b454d",
        "GPL-2+, CC-BY-3.0, CC-BY-SA-3.0, by file",
        "*/music/*",
    ),
    Package(
        "nexuiz-music",
        "2.5.2-12",
        "d1a7d6e2c0a5bbe6670dbf73354e38f742597310d425e373250fc71a636f8dda",
        "GPL-2+",
        "*.pk3/*",
    ),
    Package(
        "openclonk-data",
        "8.1-3",
        "1505314b47196c5052caf75e870ea2cf36bdb4e1d0c7e3f133da93815b7e642f",
        "CC-BY-3.0, CC0, by file",
        "*/Music.ocg/*",
    ),
    Package(
        "pathological",
        "1.1.3-17",
        "83c2c8e91bc2dd0e4fbc162b1123a4760e644bf21e8c5b6c684cd4d2bd8f1b65",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "scorched3d-data",
        "44+dfsg-8",
        "b0be0a6d561966a62b1f135e0e6f5681c85f12e34ecad5777cb1af9fbcb7f1da",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "starfighter-data",
        "2.4-1",
        "0c6038f76836c88249928d2ec93375cada3ccf4beb6d6faac3679f3bdb0e39cd",
        "several, by file",
        "*/music/*",
        LEFT_OUT,
    ),
    Package(
        "supertux-data",
        "0.6.3-2",
        "a6ad8865972f1dbb5e7b49f4e1b381dd16a68f3028a3502cfeaca2400285d27f",
        "GPL-2+, CC-BY-SA-3.0",
        "*/music/*",
        LEFT_OUT,
    ),
    Package(
        "supertuxkart-data",
        "1.4+dfsg-2",
        "568d69cda50dc8ad1facb89514bd14953dfca736fdb83c49ae330b0aa7dd2364",
        "CC-BY-SA-3.0, CC-BY-SA-4.0, GPL, by file",
        "*/music/*",
    ),
    Package(
        "tuxmath-data",
        "2.0.3-9",
        "7b928f122983074e06aee51a0b6f333926a3a475c1fc12485a8c040ca1cb9e75",
        "public domain, CC-BY-SA, GPL, by file",
        "*/sounds/*",
    ),
    Package(
        "ufoai-music",
        "2.5-2",
        "2465d55e9dce75a3a2a1ad1c8ca67da84e251c04e0965d63a8562b2d9f76f9e6",
        "GPL-2+, CC-BY-3.0, CC-BY-SA-3.0, public domain, by file",
        "*.pk3/*",
    ),
    Package(
        "unknown-horizons",
        "2019.1-6",
        "ff49ea196d0f57c80d4cd4509c030240cbe632881f8c5b2a1265dd3e3795f100",
        "CC-BY-SA-3.0",
        "*/music/*",
        LEFT_OUT,
        "*/voice/*",
    ),
    Package(
        "warmux-data",
        "1:11.04.1+repack2-4",
        "cceec72afcc9d5b0515149eb505bf0d883bd47399e602b30a805cafa2d91eb70",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "warzone2100-music",
        "4.3.3-3",
        "d3b2c9f90ea5438d45d4aff18339a03ec808e1affa9dac91f7dad61cb15ee64e",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "wesnoth-1.16-music",
        "1:1.16.9-1",
        "f9bc3cde92b4ab30db5d7b85f89b4bcc3d788dd92602956d0347250850bf59bb",
        "GPL-2+",
        "*/music/*",
    ),
    Package(
        "widelands-data",
        "2:1.1-3",
        "0e23d645b15bcfb9e3bcae0de9bc1bdfa75a6ecb36b2e449759d6eb0b4bbd8fb",
        "GPL-2+, CC-BY-SA-3.0, by file",
        "*/music/*",
    ),
)
"""What is learnt from, and what is left out to measure with."""
