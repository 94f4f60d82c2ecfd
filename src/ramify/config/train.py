"""``train.*``: the optimizer, its schedule, and where it runs."""

from typing import Annotated, Literal

from pydantic import Field

from ramify.config.types import Accepts, AtLeastZero, BelowOne, Count, Fraction, Natural, Positive, Section, Share, Text


class TrainConfig(Section):
    """``train.*``: the optimizer, its schedule, and where it runs."""

    epochs: Annotated[Natural, Accepts("a whole number >= 1, or 0 in a run with a parent")] = 30
    """passes over the training pictures"""
    optimizer: Literal["sgd", "adam", "adamw", "muon", "normed_muon"] = "sgd"
    """sgd and muon have train.momentum, the others PyTorch's betas; muon moves weights by orthogonal steps
    (arXiv:2502.16982) and all else as adamw, at rates that suit adamw; normed_muon keeps the norm of each convolution
    and moves all else by Nesterov SGD (arXiv:2404.00498)"""
    nesterov: bool = False
    """Nesterov momentum of sgd (arXiv:1212.0901); muon always has it"""
    learning_rate: Positive = 0.02
    """learning rate before any milestone, and after the warm-up"""
    schedule: Literal["steps", "cosine", "linear"] = "steps"
    """how the learning rate falls: at train.milestones by their gammas; or from step to step, along half a cosine
    (arXiv:1608.03983) or a line, to train.final_rate"""
    warmup: AtLeastZero = 0.0
    """epochs over which the learning rate rises along a line from 0 (arXiv:1706.02677)"""
    final_rate: Share = 0.0
    """schedules cosine and linear: fraction of the learning rate left at the end"""
    milestones: Annotated[
        tuple[Count, ...] | None, Accepts("a rising list of epochs, or null for 60 %, 80 % and 95 % of the epochs")
    ] = None
    """from these epochs on, the learning rate is multiplied by their gamma"""
    gammas: Annotated[
        Positive | tuple[Positive, ...], Accepts("a number > 0, or a list with one for each milestone")
    ] = 0.2
    """factor of the learning rate at each milestone"""
    momentum: BelowOne = 0.9
    """momentum of sgd, muon and normed_muon"""
    weight_decay: AtLeastZero = 1e-4
    """decay of the parameters that train.decay names"""
    backbone_rate: Positive = 1.0
    """with network.backbone or network.module: factor on the learning rate of everything but the exits and the layer
    that makes the logits; such as 0.1 for trained weights"""
    freeze_epochs: Natural = 0
    """with network.backbone or network.module: so many epochs train the exits and the layer that makes the logits
    alone; all else stays as it is, batch norm statistics included"""
    decay: Literal["weights", "all"] = "weights"
    """what train.weight_decay is of: convolution and linear weights, which spares biases and batch norm, or every
    parameter"""
    label_smoothing: BelowOne = 0.0
    """share of each label that is spread evenly over all classes (arXiv:1512.00567)"""
    ema: Annotated[Fraction | None, Accepts("a number in (0, 1), such as 0.999, or null")] = None
    """decay of an exponential average of the weights that follows growth and pruning, and is what is validated, kept
    and tested (arXiv:1803.05407 averages evenly)"""
    flip_test: Annotated[bool, Accepts("true, false; false for digits and mnist")] = False
    """validate and test by the mean of the logits of each picture and its mirror, at twice the MACs"""
    tau_max: Annotated[
        tuple[AtLeastZero, ...] | None,
        Accepts("a list with one number >= 0 for each internal classifier, or null for 0.01 + (i + 1) / exits"),
    ] = None
    """weight of an internal classifier in the loss: rises to this from 0.01 over the epochs; with a parent it is this
    from the start"""
    exits_only: Annotated[bool, Accepts("true, false; true in a run with a parent")] = False
    """train the internal classifiers alone, each with weight 1; all else stays as it is, bit for bit"""
    exit_gradients: Literal["sum", "equilibrium", "last"] = "sum"
    """what flows from the exits into the trunk: the sum of their gradients, the mean over the exits behind each stage
    (gradient equilibrium, arXiv:1908.06294), or the gradient of the deepest exit alone, so that the others cost it
    nothing"""
    trunk_first: Natural = 0
    """mixed training (arXiv:2407.14320): while the network grows, and for so many epochs from the last growth on, the
    deepest exit trains alone; then all exits do. 0: all exits from the start"""
    distill: AtLeastZero = 0.0
    """self-distillation (arXiv:1905.08094): weight of the divergence of each internal classifier from the deepest exit,
    beside its cross-entropy"""
    distill_temperature: Positive = 4.0
    """logits are divided by it where an exit learns from the deepest exit or from a teacher"""
    teacher: Annotated[
        Text | None, Accepts("the name of a run, the path of its folder or of a saved network, or null")
    ] = None
    """every exit learns from the last exit of that network as well (distillation, arXiv:1503.02531)"""
    teacher_weight: Annotated[Share | None, Accepts("a number in [0, 1], or null for 0.5 with a teacher")] = None
    """weight of the teacher in each exit's loss; the labels have the rest"""
    teacher_exits: bool = False
    """each exit learns from the same exit of the teacher where that is right, and to stay undecided where it is wrong
    (ERDE, arXiv:2510.04856), in place of the teacher's last exit"""
    exit_focus: Share = 0.0
    """how far an exit learns from the pictures that come to it: they count by how unsure earlier exits are (after
    arXiv:2509.08318); 0: all count alike"""
    class_weights: Annotated[
        Literal["none", "balanced"] | Annotated[tuple[AtLeastZero, ...], Field(min_length=2)],
        Accepts("none, balanced, or a list of one number >= 0 for each class in the order of their names"),
    ] = "none"
    """weight of each class in the loss; balanced: N / (C * n) for a class of n of the N training pictures in C classes;
    they are scaled so that the mean over the training pictures is 1"""
    keep: Literal["best", "last"] = "best"
    """the epoch whose network a run is tested with and keeps: the one with the best validation accuracy, or the last,
    where there are too few validation pictures to choose by"""
    patience: Count | None = None
    """early stopping: the run ends after so many epochs without a better validation score; they count from the last
    growth and pruning on"""
    quantize: Literal["none", "int8"] = "none"
    """int8: training steps round what each layer reads and its weights as the int8 export does, with gradients that
    pass straight through (arXiv:1712.05877); for the last epochs, in a run with a parent"""
    clip: Positive | None = None
    """largest norm of the gradient of all weights; more is scaled down"""
    compile: bool = False
    """compile the training step with torch.compile, again after each growth"""
    record: Annotated[bool | None, Accepts("true, false, or null: true where it can be done")] = None
    """record the whole training step as a CUDA graph and replay it; on a CUDA device, in one process, with sgd or muon,
    and without a teacher"""
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"), Accepts("auto, cpu, cuda, cuda:<n>, mps")
    ] = "auto"
    """where the run computes; auto takes a GPU where there is one"""
    threads: Annotated[
        Count | None,
        Accepts("a whole number >= 1, or null: 1 for pictures up to 16 x 16 pixels, else PyTorch's own number"),
    ] = None
    """processor threads, at most as many as the machine has processors; kept with the run, so that it goes on with as
    many, and ends with the same bits"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 computes under autocast; auto takes it on GPUs that have it, and on processors that have it for pictures
    above 16 x 16 pixels"""
