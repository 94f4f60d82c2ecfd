"""``train.*``: the optimizer, its schedule, and where it runs."""

from typing import Annotated, Literal

from pydantic import Field

from ramify.config.types import AtLeastZero, Count, Key, Number, Positive, Section, Share, Text, Whole


class TrainConfig(Section):
    """``train.*``: the optimizer, its schedule, and where it runs."""

    epochs: Annotated[
        Whole, Field(ge=0), Key("a whole number >= 1, or 0 in a run with a parent", "passes over the training pictures")
    ] = 30
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw", "muon", "normed_muon"],
        Key(
            "sgd, adam, adamw, muon, normed_muon",
            "sgd and muon have train.momentum, the others PyTorch's betas; muon moves weights by orthogonal steps "
            "(arXiv:2502.16982) and all else as adamw, at rates that suit adamw; normed_muon keeps the norm of each "
            "convolution and moves all else by Nesterov SGD (arXiv:2404.00498)",
        ),
    ] = "sgd"
    nesterov: Annotated[bool, Key("true, false", "Nesterov momentum of sgd (arXiv:1212.0901); muon always has it")] = (
        False
    )
    learning_rate: Annotated[
        Positive, Key("a number > 0", "learning rate before any milestone, and after the warm-up")
    ] = 0.02
    schedule: Annotated[
        Literal["steps", "cosine", "linear"],
        Key(
            "steps, cosine, linear",
            "how the learning rate falls: at train.milestones by their gammas; or from step to step, along half a "
            "cosine (arXiv:1608.03983) or a line, to train.final_rate",
        ),
    ] = "steps"
    warmup: Annotated[
        AtLeastZero,
        Key("a number >= 0", "epochs over which the learning rate rises along a line from 0 (arXiv:1706.02677)"),
    ] = 0.0
    final_rate: Annotated[
        Share, Key("a number in [0, 1]", "schedules cosine and linear: fraction of the learning rate left at the end")
    ] = 0.0
    milestones: Annotated[
        tuple[Count, ...] | None,
        Key(
            "a rising list of epochs, or null for 60 %, 80 % and 95 % of the epochs",
            "from these epochs on, the learning rate is multiplied by their gamma",
        ),
    ] = None
    gammas: Annotated[
        Positive | tuple[Positive, ...],
        Key("a number > 0, or a list with one for each milestone", "factor of the learning rate at each milestone"),
    ] = 0.2
    momentum: Annotated[
        Number, Field(ge=0, lt=1), Key("a number in [0, 1)", "momentum of sgd, muon and normed_muon")
    ] = 0.9
    weight_decay: Annotated[AtLeastZero, Key("a number >= 0", "decay of the parameters that train.decay names")] = 1e-4
    backbone_rate: Annotated[
        Positive,
        Key(
            "a number > 0",
            "with network.backbone or network.module: factor on the learning rate of everything but the exits and the "
            "layer that makes the logits; such as 0.1 for trained weights",
        ),
    ] = 1.0
    freeze_epochs: Annotated[
        Whole,
        Field(ge=0),
        Key(
            "a whole number >= 0",
            "with network.backbone or network.module: so many epochs train the exits and the layer that makes the "
            "logits alone; all else stays as it is, batch norm statistics included",
        ),
    ] = 0
    decay: Annotated[
        Literal["weights", "all"],
        Key(
            "weights, all",
            "what train.weight_decay is of: convolution and linear weights, which spares biases and batch norm, or "
            "every parameter",
        ),
    ] = "weights"
    label_smoothing: Annotated[
        Number,
        Field(ge=0, lt=1),
        Key("a number in [0, 1)", "share of each label that is spread evenly over all classes (arXiv:1512.00567)"),
    ] = 0.0
    ema: Annotated[
        Annotated[Number, Field(gt=0, lt=1)] | None,
        Key(
            "a number in (0, 1), such as 0.999, or null",
            "decay of an exponential average of the weights that follows growth and pruning, and is what is "
            "validated, kept and tested (arXiv:1803.05407 averages evenly)",
        ),
    ] = None
    flip_test: Annotated[
        bool,
        Key(
            "true, false; false for digits and mnist",
            "validate and test by the mean of the logits of each picture and its mirror, at twice the MACs",
        ),
    ] = False
    tau_max: Annotated[
        tuple[AtLeastZero, ...] | None,
        Key(
            "a list with one number >= 0 for each internal classifier, or null for 0.01 + (i + 1) / exits",
            "weight of an internal classifier in the loss: rises to this from 0.01 over the epochs; "
            "with a parent it is this from the start",
        ),
    ] = None
    exits_only: Annotated[
        bool,
        Key(
            "true, false; true in a run with a parent",
            "train the internal classifiers alone, each with weight 1; all else stays as it is, bit for bit",
        ),
    ] = False
    exit_gradients: Annotated[
        Literal["sum", "equilibrium", "last"],
        Key(
            "sum, equilibrium, last",
            "what flows from the exits into the trunk: the sum of their gradients, the mean over the exits behind "
            "each stage (gradient equilibrium, arXiv:1908.06294), or the gradient of the deepest exit alone, so that "
            "the others cost it nothing",
        ),
    ] = "sum"
    trunk_first: Annotated[
        Whole,
        Field(ge=0),
        Key(
            "a whole number >= 0",
            "mixed training (arXiv:2407.14320): while the network grows, and for so many epochs from the last growth "
            "on, the deepest exit trains alone; then all exits do. 0: all exits from the start",
        ),
    ] = 0
    distill: Annotated[
        AtLeastZero,
        Key(
            "a number >= 0",
            "self-distillation (arXiv:1905.08094): weight of the divergence of each internal classifier from the "
            "deepest exit, beside its cross-entropy",
        ),
    ] = 0.0
    distill_temperature: Annotated[
        Positive,
        Key("a number > 0", "logits are divided by it where an exit learns from the deepest exit or from a teacher"),
    ] = 4.0
    teacher: Annotated[
        Text | None,
        Key(
            "the name of a run, the path of its folder or of a saved network, or null",
            "every exit learns from the last exit of that network as well (distillation, arXiv:1503.02531)",
        ),
    ] = None
    teacher_weight: Annotated[
        Share | None,
        Key(
            "a number in [0, 1], or null for 0.5 with a teacher",
            "weight of the teacher in each exit's loss; the labels have the rest",
        ),
    ] = None
    teacher_exits: Annotated[
        bool,
        Key(
            "true or false",
            "each exit learns from the same exit of the teacher where that is right, and to stay undecided where it is "
            "wrong (ERDE, arXiv:2510.04856), in place of the teacher's last exit",
        ),
    ] = False
    exit_focus: Annotated[
        Share,
        Key(
            "a number in [0, 1]",
            "how far an exit learns from the pictures that come to it: they count by how unsure earlier exits are "
            "(after arXiv:2509.08318); 0: all count alike",
        ),
    ] = 0.0
    class_weights: Annotated[
        Literal["none", "balanced"] | Annotated[tuple[AtLeastZero, ...], Field(min_length=2)],
        Key(
            "none, balanced, or a list of one number >= 0 for each class in the order of their names",
            "weight of each class in the loss; balanced: N / (C * n) for a class of n of the N training pictures in C "
            "classes; they are scaled so that the mean over the training pictures is 1",
        ),
    ] = "none"
    keep: Annotated[
        Literal["best", "last"],
        Key(
            "best, last",
            "the epoch whose network a run is tested with and keeps: the one with the best validation accuracy, or the "
            "last, where there are too few validation pictures to choose by",
        ),
    ] = "best"
    patience: Annotated[
        Count | None,
        Key(
            "a whole number >= 1, or null",
            "early stopping: the run ends after so many epochs without a better validation score; they count from the "
            "last growth and pruning on",
        ),
    ] = None
    quantize: Annotated[
        Literal["none", "int8"],
        Key(
            "none, int8",
            "int8: training steps round what each layer reads and its weights as the int8 export does, with gradients "
            "that pass straight through (arXiv:1712.05877); for the last epochs, in a run with a parent",
        ),
    ] = "none"
    clip: Annotated[
        Positive | None,
        Key("a number > 0, or null", "largest norm of the gradient of all weights; more is scaled down"),
    ] = None
    compile: Annotated[
        bool, Key("true, false", "compile the training step with torch.compile, again after each growth")
    ] = False
    record: Annotated[
        bool | None,
        Key(
            "true, false, or null: true where it can be done",
            "record the whole training step as a CUDA graph and replay it; on a CUDA device, in one process, with sgd "
            "or muon, and without a teacher",
        ),
    ] = None
    device: Annotated[
        str,
        Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"),
        Key("auto, cpu, cuda, cuda:<n>, mps", "where the run computes; auto takes a GPU where there is one"),
    ] = "auto"
    threads: Annotated[
        Count | None,
        Key(
            "a whole number >= 1, or null: 1 for pictures up to 16 x 16 pixels, else PyTorch's own number",
            "processor threads, at most as many as the machine has processors; kept with the run, so that it "
            "goes on with as many, and ends with the same bits",
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Key(
            "auto, float32, bfloat16",
            "bfloat16 computes under autocast; auto takes it on GPUs that have it, and on processors that have it for "
            "pictures above 16 x 16 pixels",
        ),
    ] = "auto"
