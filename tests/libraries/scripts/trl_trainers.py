"""SFT on a few sentences, and GRPO with a reward that counts a letter."""

import small
from datasets import Dataset
from skytorch.integrations import transformers
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

if not small.on_cpu():
    transformers.use(small.device())


class Seeded(TrainerCallback):
    """The same numbers on every device: on the CPU the completions share a generator with the shuffling of data."""

    def on_step_begin(self, args, state, control, **others):
        small.torch.manual_seed(state.global_step)


common = {"max_steps": 3, "logging_steps": 1, "report_to": [], "disable_tqdm": True, "bf16": False}
common |= {"use_cpu": small.on_cpu(), "per_device_train_batch_size": 4, "learning_rate": 1e-2}
common |= {"gradient_checkpointing": False}
sentences = Dataset.from_dict({"text": ["a b c d e f", "g h i j", "k l m n o", "p q r s"] * 4})
tuned = small.llama(30)
sft = SFTTrainer(
    tuned, args=SFTConfig("sft", max_length=16, **common), train_dataset=sentences, processing_class=small.tokenizer()
)
sft.train()
prompts = Dataset.from_dict({"prompt": ["a b c", "g h i", "k l", "p q r"] * 4})
policy = small.llama(30)
small.torch.manual_seed(0)
grpo = GRPOTrainer(
    policy,
    reward_funcs=lambda completions, **others: [float(text.count("a")) for text in completions],
    args=GRPOConfig("grpo", num_generations=2, max_completion_length=6, **common),
    train_dataset=prompts,
    processing_class=small.tokenizer(),
    callbacks=[Seeded()],
)
grpo.train()
told = ("loss", "reward", "reward_std", "grad_norm", "entropy", "completions/mean_length")
steps = [{key: line[key] for key in told} for line in grpo.state.log_history if "reward" in line]
values = {"sft": small.losses(sft), "grpo": steps}
small.report(values=values, places=[tuned.device.type, policy.device.type])
