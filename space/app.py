"""The demonstration of 3FabRec as a Hugging Face Space: `python app.py` runs it on any machine, too."""

from pathlib import Path

from fabrec_hf.demo.zero_gpu import borrows_gpu


MODELS = ("3fabrec-300w", "3fabrec-300w-50shot", "3fabrec-300w-10shot", "3fabrec-300w-1shot")

if __name__ == "__main__":
    device = "cpu" if borrows_gpu() else None

    from fabrec_hf.demo.server import Settings, serve

    examples = sorted((Path(__file__).parent / "examples").glob("*.jpg"))
    serve(Settings(examples=examples, models=MODELS, device=device))
