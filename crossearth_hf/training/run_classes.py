"""The classes of a run: the given ones, else those that the data name, else the model's."""

from ..data import source_classes
from ..data.class_question import ask_for_classes
from ..errors import InputError
from ..labels import LabelSet, label_set_for
from ..model.configuration_crossearth import CrossEarthConfig
from .config import TrainConfig
from .starting_model import named_classes


def run_classes(config: TrainConfig) -> LabelSet:
    """The classes that a run trains.

    Raises:
        InputError: Nothing names the classes (the message lists the values in the masks), data sources name different
            classes, or a model or a data source does not exist.
    """
    if config.label_set is not None:
        return config.label_set
    known = {}
    if config.needs_labels:
        named = {text: source_classes(text) for text in config.train_data}
        known = {text: found for text, found in named.items() if found is not None}
    if len({found.classes for found in known.values()}) > 1:
        told = "; ".join(f"{text}: {', '.join(found.classes)}" for text, found in known.items())
        raise InputError(
            f"the sources name different classes ({told}); say which the model learns, with --classes"
        )
    of_model = named_classes(config)
    if known:
        return next(iter(known.values()))
    if of_model is not None:
        return of_model
    if not config.needs_labels:
        return label_set_for(CrossEarthConfig().id2label)  # mere numbers, since no label is read
    raise InputError(ask_for_classes(config.train_data, config.reading, "neither data nor model"))
