"""The training loop, from data to weights (§4.2)."""

import math
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pconv_train.config import ConfigError, TrainConfig
from pconv_train.data import CropDataset, CropSettings, StreamSampler, find_photos, fixed_samples, hold_out
from pconv_train.layouts import find_training_photos
from pconv_train.log import RunLog
from pconv_train.losses import total_loss
from pconv_train.machine import (
    agree,
    choose_precision,
    ignore_stop_signals,
    join_processes,
    share,
    stop_signals,
    stopwatch,
)
from pconv_train.state import STATE_FILE, Ema, Progress, load_state, save_state
from pconv_train.validation import (
    load_coarse,
    restore,
    restored_part,
    set_training_mode,
    to_device,
    validate,
    with_coarse,
)
from pconv_train.vgg import load_vgg

BAD_STEPS_LIMIT = 20  # steps in a row without a finite gradient that end a run


class DivergedError(RuntimeError):
    """The loss or its gradient was not finite for many steps in a row; the last good weights are saved."""


def train(config: TrainConfig, run: Path) -> Progress:
    """Train until the steps or hours of the config are over, or a signal asks to stop; save; return the counters.

    A run folder that has a state goes on from it. SIGTERM and SIGINT end the step, save and return.

    Args:
        config: All options.
        run: Run folder with config.json.

    Raises:
        ConfigError, DataError, CheckpointError: Options, photos or weights that cannot be used.
        DivergedError: Too many steps in a row without a finite gradient.
        OSError: The final state cannot be written; the one before is still there.
    """
    rank, world, device = join_processes(config)
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    precision = choose_precision(config.precision, device)
    autocast = partial(torch.autocast, device.type, precision, enabled=precision != torch.float32)

    # Data.
    photos, held = _split(config)
    holes = tuple(find_photos(Path(config.holes))) if config.holes else ()
    settings = CropSettings(
        config.task,
        config.crop,
        config.seed,
        config.max_scale,
        hole_files=holes,
        narrow=config.edge > 0,  # as it is used
        curriculum=config.curriculum,
        curriculum_share=config.curriculum_share,
    )
    validation = fixed_samples(held, settings) if rank == 0 else []

    # Network.
    network = config.build_network()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    set_training_mode(network, config.freeze_encoder_norm)
    coarse = load_coarse(config, device)
    vgg = load_vgg(Path(config.vgg) if config.vgg else None) if config.loss.need_vgg else None
    features = autocast()(vgg.to(device, memory_format=torch.channels_last)) if vgg else None  # type: ignore[call-overload]
    model = DistributedDataParallel(network) if world > 1 else network

    # Optimizer.
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=config.learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    ema = Ema(network, config.ema)
    resumed = (run / STATE_FILE).exists()
    progress = load_state(run, network, optimizer, ema, scaler) if resumed else Progress()
    progress.pictures = progress.pictures or progress.step * config.batch * world  # of a version that did not count
    if not resumed and rank == 0:
        save_state(run, progress, network, optimizer, ema, scaler)
    sampler = StreamSampler(progress.step, (config.steps or 2**40) - progress.step, config.batch, rank, world)
    crops, pinned = CropDataset(photos, settings), device.type == "cuda"
    loader = DataLoader(
        crops,
        config.batch,
        sampler=sampler,
        num_workers=config.workers,
        pin_memory=pinned,
        worker_init_fn=ignore_stop_signals,
    )

    bad, saved = 0, time.monotonic()
    averages = _Averages()
    total, unit = (config.steps, "step") if config.steps else (3600 * (config.hours or 0), "s")
    log = RunLog(run, total, _done(config, progress), unit, rank == 0)
    with log, stop_signals() as stop_asked, stopwatch() as watch:
        log.say(f"{run}: {len(photos)} photos, {len(held)} held out, {world} × {device}, {precision}")
        for batch in loader:
            # Step.
            image, hole, target = with_coarse(coarse, to_device(batch, device), config)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(config, progress)
            torch.manual_seed((config.seed + progress.step) * world + rank)  # of the network's random numbers
            statistics = [buffer.clone() for buffer in network.buffers()]
            with autocast():
                output = restore(model, image, hole, config)
            generator = torch.Generator().manual_seed(config.seed + progress.step)
            part = restored_part(hole, config)
            crop, turned = config.perceptual_crop, config.perceptual_turned
            loss, terms = total_loss(output, target, part, config.loss, features, crop, generator, turned)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
            progress.step += 1
            progress.pictures += config.batch * world
            # Clipping by a norm that is not finite would write NaN into every weight.
            finite = not agree(not torch.isfinite(norm + loss.detach()), device, world)
            if finite:
                scaler.step(optimizer)
                ema.update(network, progress.step)
            else:
                for buffer, before in zip(network.buffers(), statistics, strict=True):
                    buffer.copy_(before)
                progress.skipped += 1
            scaler.update()
            bad = 0 if finite else bad + 1
            # The others' clocks run on while the first validates, and the learning rate depends on the time.
            progress.seconds = share(progress.seconds + watch.lap(), device, world)
            log.advance(_done(config, progress))

            # Log.
            averages.add({"loss": loss.detach(), "norm": norm, **terms}, config.batch * world, finite)
            if progress.step % config.log_every == 0:
                rate = {"lr": optimizer.param_groups[0]["lr"], "skipped": progress.skipped}
                log.scalars(progress.step, "train", {**averages.take(progress.seconds), **rate})
            if rank == 0 and validation and progress.step % config.validate_every == 0:
                progress.figures = validate(network, ema, validation, coarse, config, device, log, progress.step)
                watch.lap()  # validation is not training time

            # Save.
            ending = agree(_is_over(config, progress) or stop_asked() or bad >= BAD_STEPS_LIMIT, device, world)
            if rank == 0 and not ending and time.monotonic() - saved > 60 * config.save_minutes:
                try:
                    save_state(run, progress, network, optimizer, ema, scaler)
                except OSError as error:
                    log.say(f"cannot save ({error}); the last state stays; trying again in {config.save_minutes:g} min")
                saved = time.monotonic()
            if ending:
                break
        if rank == 0:
            save_state(run, progress, network, optimizer, ema, scaler)  # at once: who asked to stop may not wait
            if validation and bad < BAD_STEPS_LIMIT:
                progress.figures = validate(network, ema, validation, coarse, config, device, log, progress.step)
                save_state(run, progress, network, optimizer, ema, scaler)
    if world > 1:
        dist.destroy_process_group()
    if bad >= BAD_STEPS_LIMIT:
        raise DivergedError(
            f"{bad} steps in a row had no finite gradient, up to step {progress.step}; the weights before them "
            f"are saved in {run}. Try a lower --learning-rate, fewer --stages or --precision fp32"
        )
    return progress


def schedule(config: TrainConfig, progress: Progress) -> float:
    """Return the factor of the learning rate: linear warm-up, then cosine to 0 over the steps or hours of the run."""
    warm = min(1.0, (progress.step + 1) / max(1, config.warmup))
    if config.schedule == "constant":
        return warm
    done = _done(config, progress) / (config.steps or 3600 * (config.hours or 1))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Averages:
    """Means of the figures since they were last taken, and pictures a second."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = self._pictures = 0
        self._since: float | None = None

    def add(self, values: dict[str, Tensor], pictures: int, finite: bool) -> None:
        self._pictures += pictures
        if finite:
            self._count += 1
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value

    def take(self, seconds: float) -> dict[str, float]:
        means = {name: round(float(total) / self._count, 6) for name, total in self._sums.items()}
        if self._since is not None:
            means["pictures_per_s"] = round(self._pictures / max(seconds - self._since, 1e-9), 2)
        self._sums, self._count, self._pictures, self._since = {}, 0, 0, seconds
        return means


def _split(config: TrainConfig) -> tuple[list[Path], list[Path]]:
    photos = find_training_photos(config)
    if config.validation >= len(photos):
        raise ConfigError(f"--validation {config.validation} leaves none of {len(photos)} photos for training")
    return hold_out(photos, config.validation)


def _done(config: TrainConfig, progress: Progress) -> float:
    """Steps done, or seconds where the config limits those."""
    return progress.step if config.steps else progress.seconds


def _is_over(config: TrainConfig, progress: Progress) -> bool:
    return _done(config, progress) >= (config.steps or 3600 * (config.hours or 0))
