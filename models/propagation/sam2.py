"""SAM 2 (Ravi et al. 2024) as a plug: Sam2VideoModel of transformers, fed frame by frame.

Its training data hold videos of everyday objects, so that no class is new to it.
"""
from functools import lru_cache

import torch
import torch.nn.functional as F
from transformers import Sam2VideoModel, Sam2VideoProcessor

NAME_WEIGHTS = """propagation.weights: sam2 needs the name of its weights.
  A folder in the format of transformers, or such a name as facebook/sam2.1-hiera-tiny, which transformers downloads."""


@lru_cache(maxsize=2)
def network(weights, device):
    """->  processor, model; read once for all videos, and from safetensors alone, which hold no code"""
    model = Sam2VideoModel.from_pretrained(weights, use_safetensors=True)
    return Sam2VideoProcessor.from_pretrained(weights), model.to(device).eval()


class Sam2:
    """The factory of `propagation.plug: sam2`; one object per video."""
    own_size = True

    def __init__(self, cfg, model, device):
        self.processor, self.network = network(cfg.propagation.weights, device)
        settings = self.network.config
        self.kept = max(settings.num_maskmem, settings.max_object_pointers_in_encoder)

    @staticmethod
    def check(own):
        if own.weights == "none":
            raise ValueError(NAME_WEIGHTS)

    def begin(self, image, mask):
        """image (3, H, W) in [0, 1], mask (H, W) bool"""
        self.session, self.frame = self.processor.init_video_session(inference_device=image.device), 0
        self.processor.add_inputs_to_inference_session(self.session, 0, 1, input_masks=mask)
        self.step(image)

    def propagate(self, images):
        """images (T, 3, H, W)  ->  logits (T, H, W)"""
        return torch.stack([self.step(image) for image in images])

    def step(self, image):
        """The next frame (3, H, W)  ->  logits (H, W)"""
        pixels = self.processor(images=(image * 255).round().byte(), device=image.device, return_tensors="pt")
        logits = self.network(inference_session=self.session, frame=pixels.pixel_values[0],
                              frame_idx=self.frame).pred_masks
        self.forget()
        self.frame += 1
        return F.interpolate(logits.float(), size=image.shape[1:], mode="bilinear", align_corners=False)[0, 0]

    def forget(self):
        """What later frames do not read leaves the session, or memory would grow with the video."""
        self.session.processed_frames.clear()
        for outputs in self.session.output_dict_per_obj.values():
            outputs["non_cond_frame_outputs"].pop(self.frame - self.kept, None)
