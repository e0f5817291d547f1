"""Classification and regression metrics, updated twice, on the device of their inputs."""

import small
import torch
import torchmetrics
from torchmetrics import classification

device = small.device()
guesses, truth = torch.rand(40, 3).softmax(1).to(device), torch.randint(0, 3, (40,)).to(device)
scores = torchmetrics.MetricCollection(
    {
        "accuracy": classification.MulticlassAccuracy(3),
        "f1": classification.MulticlassF1Score(3),
        "auroc": classification.MulticlassAUROC(3),
        "confusion": classification.MulticlassConfusionMatrix(3),
    }
).to(device)
scores.update(guesses[:20], truth[:20])
scores.update(guesses[20:], truth[20:])
values = {name: value.tolist() for name, value in scores.compute().items()}
for metric in (torchmetrics.MeanSquaredError(), torchmetrics.PearsonCorrCoef(), torchmetrics.R2Score()):
    values[type(metric).__name__] = metric.to(device)(guesses[:, 0], guesses[:, 1]).item()
mean = torchmetrics.MeanMetric().to(device)
mean.update(guesses)
values["mean"] = mean.compute().item()
small.report(values=values, places=[scores["accuracy"].device.type, mean.device.type])
