"""What the scripts share: the device they are told, tiny models from configs, data from a seed, and the report."""

from __future__ import annotations

import json
import sys
from typing import Any

import skytorch  # noqa: F401
import torch

torch.manual_seed(0)


def device() -> torch.device:
    return torch.device(sys.argv[1])


def on_cpu() -> bool:
    return device().type == "cpu"


def report(**values: Any) -> None:
    """The last line of a script: what is compared, and the devices that its tensors ended on."""
    print(json.dumps(values))


def sizes(**more: Any) -> dict[str, Any]:
    common = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return {**common, "num_attention_heads": 2, **more}


def llama(vocab_size: int = 50) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(**sizes(vocab_size=vocab_size, num_key_value_heads=1, **tokens)))


def bert_classifier() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**sizes()))


def labelled_rows(count: int = 32) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(5, 50, (count, 8), generator=generator)
    return [{"input_ids": row, "labels": torch.tensor(i % 2)} for i, row in enumerate(rows)]


def tokenizer() -> Any:
    """Thirty words: four signs and the alphabet."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    signs = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **signs)


def losses(trainer: Any) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]
