"""What Linux says of processors that are not here, in `/proc/cpuinfo`."""

AVX2 = """\
processor\t: 0
model name\t: AMD EPYC 7B13
flags\t\t: fpu sse2 avx f16c fma avx2 bmi2
"""
AVX512_BF16 = """\
processor\t: 0
model name\t: AMD EPYC 9B14
flags\t\t: fpu sse2 avx f16c fma avx2 avx512f avx512_bf16 avx512_vnni
"""
AMX = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu sse2 avx fma avx2 avx512f amx_bf16 amx_tile
"""
ARM_BF16 = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd fphp asimdhp i8mm bf16
"""
ARM = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp
"""
UNKNOWN = ""
"""Of macOS, where there is no such file."""
