"""LoRA on a Llama: a few steps, the adapter saved, loaded onto the same base, and merged."""

import copy

import small
import torch
from peft import LoraConfig, PeftModel, get_peft_model

device = small.device()
base = small.llama().to(device)
plain = copy.deepcopy(base)
config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
model = get_peft_model(base, config)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
ids = torch.arange(12).view(2, 6).to(device)
losses = []
for _ in range(5):
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
model.save_pretrained("adapter")
loaded = PeftModel.from_pretrained(plain, "adapter")
places = sorted({p.device.type for p in loaded.parameters()})
losses.append(loaded(input_ids=ids, labels=ids).loss.item())
losses.append(loaded.merge_and_unload()(input_ids=ids, labels=ids).loss.item())
small.report(values=losses, places=places)
