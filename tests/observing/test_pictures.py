"""The monitors' figures in loggers: those of TensorBoard are in ``test_monitor.py``."""

import types

import pytest
import torch
from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image

from tests.heads.toy import ToyModule, loader
from vitlocal.heads import LocalityMonitor
from vitlocal.observing.pictures import takes_pictures

FIGURES = {"locality/mad_over_training", "locality/mad", "locality/entropy", "locality/attention/image_0"}


class Notes(Logger):
    """Notes down what it is given to draw; the packages of the loggers that it stands for aren't needed."""

    run_id = "run"

    def __init__(self):
        self.seen = []

    name = version = save_dir = None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_graph(self, model, input_array=None):
        pass

    def finalize(self, status):
        pass


class Images(Notes):
    """With the call of Lightning's W&B logger."""

    def log_image(self, key, images, step=None):
        (picture,) = images
        assert isinstance(picture, Image.Image) and min(picture.size) > 200
        self.seen.append((key, step))


class MLFlow(Notes, MLFlowLogger):
    @property
    def experiment(self):
        def log_figure(run_id, figure, artifact_file):
            assert run_id == "run" and isinstance(figure, Figure)
            name, _, step = artifact_file.removesuffix(".png").rpartition("/step_")
            self.seen.append((name, int(step)))

        return types.SimpleNamespace(log_figure=log_figure)


class Comet(Notes, CometLogger):
    @property
    def experiment(self):
        def log_figure(figure_name, figure, step):
            assert isinstance(figure, Figure)
            self.seen.append((figure_name, step))

        return types.SimpleNamespace(log_figure=log_figure)


@pytest.fixture
def fit(make_trainer):
    """Two epochs of three steps with some loggers."""

    def run(*loggers):
        torch.manual_seed(0)
        trainer = make_trainer(callbacks=[LocalityMonitor(maps=1)], logger=loggers, max_epochs=2)
        trainer.fit(ToyModule(), loader(12, first=100), loader(10))

    return run


def test_figures_reach_every_logger_that_takes_pictures(fit):
    loggers = [Images(), MLFlow(), Comet()]
    fit(*loggers, Notes())
    for logger in loggers:
        assert sorted(logger.seen) == sorted((name, step) for name in FIGURES for step in (0, 2, 5))


def test_without_such_a_logger_nothing_is_drawn(fit, tmp_path, monkeypatch):
    def drawn(*args):
        raise AssertionError("a figure")

    monkeypatch.setattr(LocalityMonitor, "_figures", drawn)
    assert not takes_pictures(CSVLogger(tmp_path))
    fit(CSVLogger(tmp_path), Notes())


def test_mlflow_itself(fit, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    fit(MLFlowLogger(save_dir=str(tmp_path / "mlruns")))
    found = list(tmp_path.rglob("artifacts/**/*.png"))
    names = {str(path.parent).rpartition("/artifacts/")[2] for path in found}
    assert names == FIGURES and len(found) == 3 * len(FIGURES)


def test_wandb_itself(fit, tmp_path):
    wandb = pytest.importorskip("wandb")
    fit(WandbLogger(save_dir=tmp_path, offline=True))
    wandb.finish()
    found = list(tmp_path.rglob("*.png"))
    assert len(found) == 3 * len(FIGURES)
