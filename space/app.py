"""The demonstration of 3FabRec as a Hugging Face Space: `python space/app.py` runs it on this machine."""

from pathlib import Path

from fabrec_hf.demo.server import Settings, serve


MODELS = ("3fabrec-300w", "3fabrec-300w-50shot", "3fabrec-300w-10shot", "3fabrec-300w-1shot")

if __name__ == "__main__":
    serve(Settings(examples=sorted((Path(__file__).parent / "examples").glob("*.jpg")), models=MODELS))
