"""generate: greedy, sampled, beams, penalties, a static cache; and two pipelines. The text must be the same."""

import small
import torch
from transformers import T5Config, T5ForConditionalGeneration, pipeline

device = small.device()
model = small.llama().to(device).eval()
prompt = {"input_ids": torch.tensor([[4, 5, 6], [0, 7, 8]]), "attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1]])}
prompt = {name: value.to(device) for name, value in prompt.items()}
ways = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "top_k": 5, "temperature": 0.7},
    "beams": {"do_sample": False, "num_beams": 3},
    "penalties": {"do_sample": False, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    "static": {"do_sample": False, "cache_implementation": "static", "disable_compile": True},
}
values = {}
for name, options in ways.items():
    torch.manual_seed(1)
    values[name] = model.generate(**prompt, max_new_tokens=8, **options).tolist()
t5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
values["t5"] = (
    T5ForConditionalGeneration(t5).to(device).eval().generate(prompt["input_ids"], max_new_tokens=5).tolist()
)
words = small.tokenizer()
writer = pipeline("text-generation", model=small.llama(30).eval(), tokenizer=words, device=device)
values["text"] = writer("a b c", max_new_tokens=6, do_sample=False)[0]["generated_text"]
judge = pipeline("text-classification", model=small.bert_classifier().eval(), tokenizer=words, device=device)
values["labels"] = judge(["a b", "c d e f"], batch_size=2)
small.report(values=values, places=[writer.model.device.type, judge.model.device.type])
