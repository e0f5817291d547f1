"""A BERT, a Llama, a ViT and a T5: forward, gradients, save_pretrained, from_pretrained with device_map."""

import small
import torch
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration, ViTConfig, ViTModel

device = small.device()
ids = torch.arange(10).view(2, 5).to(device)
mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).to(device)
picture = torch.rand(2, 3, 32, 32).to(device)
vit = {name: size for name, size in small.sizes(image_size=32, patch_size=8).items() if name != "vocab_size"}
t5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
programs = {
    "bert": (BertModel(BertConfig(**small.sizes())), {"input_ids": ids, "attention_mask": mask}),
    "llama": (small.llama(), {"input_ids": ids, "attention_mask": mask, "labels": ids}),
    "vit": (ViTModel(ViTConfig(**vit)), {"pixel_values": picture}),
    "t5": (T5ForConditionalGeneration(t5), {"input_ids": ids, "labels": ids}),
}
values, places = {}, set()
for name, (model, inputs) in programs.items():
    model = model.to(device).eval()
    output = model(**inputs)[0]
    output.float().pow(2).mean().backward()
    norms = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
    values[name] = [output.float().pow(2).mean().item(), sum(norms)]
    model.save_pretrained(name)
    for where in (str(device), {"": str(device)}):
        loaded = type(model).from_pretrained(name, device_map=where).eval()
        values[name].append(loaded(**inputs)[0].float().pow(2).mean().item())
        places.add(loaded.device.type)
small.report(values=values, places=sorted(places))
