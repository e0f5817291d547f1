"""Trainer: a BERT classifier in float32 and bfloat16, evaluation, checkpoints, and going on from one."""

import small
from skytorch.integrations import transformers
from transformers import Trainer, TrainingArguments

if not small.on_cpu():
    transformers.use(small.device())

found, places = {False: [], True: []}, []
for bf16 in (False, True):
    small.torch.manual_seed(0)
    model = small.bert_classifier()
    arguments = TrainingArguments(
        f"out-{bf16}",
        max_steps=4,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        logging_steps=1,
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
        bf16=bf16,
        use_cpu=small.on_cpu(),
    )
    data = small.labelled_rows()
    model.config.hidden_dropout_prob = 0.0
    for module in model.modules():
        if isinstance(module, small.torch.nn.Dropout):
            module.p = 0.0  # its numbers come from the generator of the device
    trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    again = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data)
    again.train(resume_from_checkpoint=f"out-{bf16}/checkpoint-2")
    found[bf16] += [small.losses(trainer), small.losses(again), trainer.evaluate()["eval_loss"]]
    places.append(str(model.device.type))
small.report(values=found[False], rounded=found[True], places=places)
