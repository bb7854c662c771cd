"""Trainer: the `transformers` Trainer with class-balanced batches, validation by retrieval, and atomic checkpoints.

Mixed precision, distribution, schedule, logging and resuming are those of `transformers`.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import broadcast_object_list
from safetensors.torch import save_file

from retrieval.encoders.engines.device import wanted_device
from retrieval.encoders.engines.torch import device_named
from retrieval.errors import TrainingError
from retrieval.files.storing import flush_all, storing
from training.data.batches import Batches, ClassSampler
from training.loop.guards import CollapseGuard, check_finite, check_weights
from training.model.learner import Learner
from training.recipe import Recipe

METRIC = "mAP"  # validation metric that selects the checkpoint
_UNFINISHED = "unfinished"
_SHOWN = ("loss", "triplet", "softmax", "spread")
_SAY_EVERY = 50  # steps

Validate = Callable[[Learner], dict[str, float]]


class MetricTrainer(transformers.Trainer):
    """Trains a Learner by its recipe; writes checkpoints to `args.output_dir` atomically."""

    def __init__(
        self,
        learner: Learner,
        batches: Batches,
        rows_of: Sequence[Sequence[int]],
        validate: Validate,
        args: transformers.TrainingArguments,
        say: Callable[[str], None] = print,
    ) -> None:
        """`rows_of[i]` are the training rows of class i; `validate` returns validation metrics, including mAP."""
        self.learner, self.folder = learner, Path(str(args.output_dir))
        self.recipe: Recipe = learner.recipe
        self.sampler = ClassSampler(rows_of, self.recipe)
        self.validate = validate
        self.guard = CollapseGuard(self.recipe, self.folder)
        self.sums: dict[str, list[float]] = defaultdict(list)
        super().__init__(model=learner, args=args, train_dataset=batches, callbacks=[_Epochs(self, learner, say)])
        self.remove_callback(transformers.PrinterCallback)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; a batch is shared by all processes."""
        return len(self.sampler) // self.recipe.batch_size

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[Any]:
        return self.sampler

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with the Learner's parameter groups."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.learner.parameter_groups())
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch. Raises TrainingError if it is not finite or the embeddings have collapsed."""
        outputs = model(**inputs)
        loss = outputs["loss"]
        step = self.state.global_step + 1
        check_finite(step, loss.detach(), self.recipe, self.folder)
        parts = {name: value.detach() for name, value in outputs.items() if name != "loss"}
        self.guard.watch(step, parts)
        for name, value in parts.items():
            self.sums[name].append(float(value))
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in transformers, then discard the gradients of frozen stages."""
        loss = super().training_step(*args, **kwargs)
        self.learner.forget_closed()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in transformers, plus the parts of the loss, averaged since the last log."""
        if "loss" in logs:
            logs = {**logs, **{name: float(np.mean(values)) for name, values in self.sums.items()}}
            self.sums.clear()
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The validation metrics, computed by the first process and broadcast to the others."""
        figures = [self.validate(self.learner) if self.is_world_process_zero() else None]
        metrics = {f"eval_{name}": value for name, value in (broadcast_object_list(figures)[0] or {}).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.folder / _UNFINISHED)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint under a temporary name, then rename it; keep only the last and the best one."""
        check_weights(self.state.global_step, self.learner, self.recipe, self.folder)
        unfinished = Path(self._get_output_dir(trial))
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        name = f"checkpoint-{self.state.global_step}"
        # The optimizer keeps two more numbers for each one of the weights.
        needed = 3 * sum(parameter.nbytes for parameter in self.learner.parameters())
        try:
            with storing(self.folder / name, TrainingError, needed=needed):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._put_in_place(unfinished / name)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)  # a full disk would stay full
            raise

    def _put_in_place(self, written: Path) -> None:
        # This path names the temporary folder; best_global_step identifies the best checkpoint.
        self.state.best_model_checkpoint = None
        self.state.save_to_json(str(written / transformers.trainer.TRAINER_STATE_NAME))
        flush_all(written)
        written.rename(self.folder / written.name)
        self._forget()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.folder)
            folder.mkdir(parents=True, exist_ok=True)
            state = {name: value.contiguous() for name, value in self.learner.state_dict().items()}
            save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    def _forget(self) -> None:
        kept = {self.state.global_step, self.state.best_global_step}
        for folder in self.folder.glob("checkpoint-*"):
            if int(folder.name.rpartition("-")[2]) not in kept:
                shutil.rmtree(folder)


class _Epochs(transformers.TrainerCallback):
    """Per epoch: reseed the sampler, unfreeze stages, validate and save. Also reports the logs."""

    def __init__(self, trainer: MetricTrainer, learner: Learner, say: Callable[[str], None]) -> None:
        self.trainer, self.learner, self.say = trainer, learner, say

    def _open(self, state: Any) -> None:
        epoch = state.global_step / self.trainer.steps_per_epoch
        self.learner.open_stages(epoch)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.sampler.epoch = state.global_step // self.trainer.steps_per_epoch
        self._open(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.learner.recipe.unfreeze:
            self._open(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The end of an epoch validates and then saves: do not also save here.
        if state.global_step % self.trainer.steps_per_epoch == 0 or state.global_step >= state.max_steps:
            control.should_save = False
        control.should_log = control.should_log or control.should_save  # keeps the log of a resumed run identical

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        shown = {name: value for name, value in logs.items() if name in _SHOWN or name.startswith("eval_")}
        if shown and (state.global_step % _SAY_EVERY == 0 or "loss" not in logs):
            values = ", ".join(f"{name.replace('eval_', 'validation ')} {value:.4f}" for name, value in shown.items())
            self.say(f"step {state.global_step} of {state.max_steps}: {values}")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log = control.should_evaluate = control.should_save = True


def training_arguments(recipe: Recipe, folder: Path, *, bf16: bool) -> transformers.TrainingArguments:
    """The Trainer's settings for a recipe; joins the process group if started with `accelerate launch`."""
    several, on_processor = int(os.environ.get("WORLD_SIZE", "1")) > 1, device_named(wanted_device()).type == "cpu"
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        # Each batch is split across processes: its classes do not depend on how many there are.
        per_device_train_batch_size=recipe.batch_size,
        accelerator_config={"split_batches": True, "dispatch_batches": False},
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        bf16=bf16,
        use_cpu=on_processor,
        ddp_backend="gloo" if several and on_processor else None,
        ddp_find_unused_parameters=False,
        ddp_timeout=86_400,  # seconds: other processes wait while the first one reads and audits the data
        dataloader_num_workers=recipe.workers,
        dataloader_drop_last=True,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        eval_strategy="no",  # on_epoch_end requests it; `evaluate` does not need an eval_dataset
        metric_for_best_model=METRIC,
        greater_is_better=True,
        logging_steps=10,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        seed=recipe.seed,
    )
    # Use at most one GPU per process: the Trainer would use DataParallel on all visible GPUs.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def has_bf16() -> bool:
    """Whether the device that LOOKALIKE_DEVICE names multiplies bfloat16 natively, without emulation.

    Always false for `mps`. Raises EncoderError for a device that torch does not see.
    """
    device = device_named(wanted_device())
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
