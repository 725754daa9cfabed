"""Opens a page on which people ask questions about songs, in their browsers.

    musilingo web
    musilingo web --model=m-a-p/MusiLingo-long-v1 --port=8080
    musilingo web --host=0.0.0.0 --password-file=password.txt

    python -m musilingo_jax.web --port=8080

The page is for this machine unless --host says otherwise. Uploaded songs are in a
private folder, and removed when a conversation is cleared or its tab closed, at the
latest when the program ends. Needs the extra `web`: `pip install 'musilingo-jax[web]'`.
"""
