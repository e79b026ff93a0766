"""Names that a pickle may import without a warning: they build tensors, arrays and plain values.

Each name was reviewed: no arguments to it, and no state set on its result, can run code chosen by the file. The list
excludes `torch.storage._load_from_bytes`, which unpickles, and `builtins.getattr`, which reaches everything.
"""

_PLAIN = "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"
_ARRAYS = "_reconstruct scalar"
_STORAGES = (
    "BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long Short QInt8 QInt32 QUInt8 QUInt2x4 "
    "QUInt4x2 Untyped Typed"
)
_DTYPES = (
    "bfloat16 bool complex32 complex64 complex128 double float float16 float32 float64 float8_e4m3fn float8_e4m3fnuz "
    "float8_e5m2 float8_e5m2fnuz half int int8 int16 int32 int64 long qint8 qint32 quint8 short uint8 uint16 uint32 "
    "uint64"
)
_REBUILD = (
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state "
    "_rebuild_sparse_tensor _rebuild_qtensor _rebuild_meta_tensor_no_storage _rebuild_device_tensor_from_numpy"
)
_NAMES = {
    "builtins": _PLAIN,
    "__builtin__": f"{_PLAIN} long unicode xrange",
    "collections": "OrderedDict defaultdict deque Counter",
    "copyreg": "_reconstructor",
    "copy_reg": "_reconstructor",
    "_codecs": "encode",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "joblib.numpy_pickle": "NumpyArrayWrapper",
    "numpy": "dtype ndarray bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64",
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "torch": " ".join([f"{kind}Storage" for kind in _STORAGES.split()]) + f" {_DTYPES} Size Tensor device",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch._utils": _REBUILD,
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "torch.storage": "TypedStorage UntypedStorage",
}
HARMLESS = frozenset(f"{module} {name}" for module, names in _NAMES.items() for name in names.split())

# Modules that can run code or access the system; imports from them are reported first.
_DANGEROUS = (
    "__builtin__ _operator _pickle asyncio bdb builtins cloudpickle code codeop commands ctypes dill distutils ftplib "
    "functools http imaplib importlib io marshal multiprocessing nt operator os pdb pickle pip pkgutil posix pty pydoc "
    "requests runpy shutil smtplib socket ssl subprocess sys tempfile threading timeit types urllib webbrowser"
)
DANGEROUS_MODULES = frozenset(_DANGEROUS.split())
