"""Names that arrays of features go by in other people's files."""

EMBEDDINGS = (
    "embeddings", "features", "x", "X", "feats", "feat", "feature", "embedding", "emb", "data",
    "all_feats", "concat_features",
)  # fmt: skip
LABELS = ("labels", "y", "targets", "label", "target", "Y", "all_labels", "concat_labels")
NAMES = ("image_names", "names", "keys", "image_files", "filenames", "paths")
CLASS_NAMES = ("class_names", "label_names", "classes")
SETS = ("train", "val", "valid", "validation", "test", "base", "novel", "support", "query")
"""Names of sets of images; arrays with no other names are not one per class."""
KNOWN = (*EMBEDDINGS, *LABELS, *NAMES, *CLASS_NAMES)
"""Names of arrays; a dict without one of EMBEDDINGS and LABELS may hold one array per class."""
