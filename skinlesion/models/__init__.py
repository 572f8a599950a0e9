"""What is trained: backbone, soft attention, metadata branch, classifier. Plain torch."""

from skinlesion.models.backbone import Backbone
from skinlesion.models.classifier import Classifier
from skinlesion.models.metadata import MetadataMLP
from skinlesion.models.soft_attention import SoftAttention
from skinlesion.models.spec import BackboneSpec

__all__ = ["Backbone", "BackboneSpec", "Classifier", "MetadataMLP", "SoftAttention"]
