"""Entry points of `torch.hub`: `model, processor = torch.hub.load(REPO, "face_landmarks", "3fabrec-300w")`."""

from fabrec_hf.checkpoints.loading import load_autoencoder as face_autoencoder  # noqa: F401
from fabrec_hf.checkpoints.loading import load_landmark_model as face_landmarks  # noqa: F401


dependencies = ["huggingface_hub", "safetensors", "timm", "torch", "torchvision", "transformers"]
