"""Names for the classes of a published checkpoint."""

from ..errors import InputError
from ..labels import LABEL_SETS, get_label_set
from ..model.configuration_crossearth import CrossEarthConfig
from .published_files import PublishedFile


def name_classes(
    config: CrossEarthConfig,
    label_set: str | None,
    known: PublishedFile | None,
    listed: tuple[str, ...],
) -> list[str]:
    """Gives the classes of `config` their names, and returns notes about found names that do not fit.

    Args:
        config: Its `num_labels` is what the weights have.
        label_set: Asked for by the user: the only names that must fit.
        known: What is known of a published file; used if as many classes are.
        listed: Names in the checkpoint's metadata; used if they are as many, in the order of the masks (`in_order`).

    Raises:
        InputError: No label set has this name, or it has another number of classes.
    """
    notes = []
    if label_set is not None:
        classes = _asked(label_set, config.num_labels)
    else:
        classes, reversed_order = in_order(listed)
        if reversed_order:
            notes.append(
                f"Its metadata lists the classes as {', '.join(listed)}; the ids of its masks are the reverse"
            )
        if (
            known is not None
            and len(names := get_label_set(known.label_set).classes) == config.num_labels
        ):
            if listed and classes != names:
                notes.append(
                    f"Its metadata calls the classes {', '.join(listed)}; the names are those of its label set"
                )
            classes = names
        elif known is not None:
            notes.append(
                f"It has {config.num_labels} classes, label set {known.label_set} another number: not used"
            )
    if len(classes) == config.num_labels:
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: index for index, name in enumerate(classes)}
    return notes


def in_order(listed: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Class names in the order of the ids, and whether `listed` has the reverse.

    The authors list "Building, Background" and "Road, Background", and train on masks in which 0 is background and 1
    the class: the network's class 0 is background. Names that differ from a label set's in case or spaces become its.
    """
    plain = tuple(name.strip().lower().replace(" ", "_") for name in listed)
    for known in LABEL_SETS.values():
        if known.classes == plain:
            return known.classes, False
        if len(plain) == 2 and known.classes[0] == "background" and known.classes == plain[::-1]:
            return known.classes, True
    return listed, False


def _asked(label_set: str, count: int) -> tuple[str, ...]:
    classes = get_label_set(label_set).classes
    if len(classes) != count:
        fitting = [f"'{name}'" for name, known in LABEL_SETS.items() if len(known.classes) == count]
        raise InputError(
            f"'decode_head.cls_embed.weight' has {count} classes, the label set '{label_set}' has {len(classes)}; "
            f"choose {' or '.join([*fitting, 'none'])}"
        )
    return classes
