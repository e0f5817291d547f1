"""The operators of torch's own op_db that must agree with the CPU forward and backward: the promise, by name.

Names are op_db's; `name@variant` picks one of several entries of a name. What is not listed here must either agree or
raise an error that names the operator; the slow half of test_op_db.py holds the rest of op_db to that.
"""

from __future__ import annotations

ELEMENTWISE = """
abs acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
bitwise_xor bitwise_left_shift bitwise_right_shift ceil clamp clamp_max clamp_min conj copysign cos cosh deg2rad
digamma div@floor_rounding div@no_rounding_mode div@trunc_rounding eq erf erfc erfinv exp exp2 expm1 float_power
floor floor_divide fmax fmin fmod frac frexp ge gt heaviside hypot i0 isclose isfinite isinf isnan isneginf
isposinf ldexp le lerp lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or
logical_xor logit lt max@binary maximum min@binary minimum mul nan_to_num ne neg nextafter positive pow rad2deg
real reciprocal remainder round round@decimals_3 rsqrt rsub sgn sigmoid sign signbit sin sinc sinh sqrt square
sub tan tanh true_divide trunc where xlogy __radd__ __rdiv__ __rmul__ __rpow__ __rsub__ polar special.entr
special.i0e special.log_ndtr special.ndtr special.xlog1py
"""

REDUCTIONS = """
all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum kthvalue logcumsumexp
logsumexp max@reduction_no_dim max@reduction_with_dim mean median min@reduction_no_dim min@reduction_with_dim
mode nanmean nanmedian nansum norm norm@fro prod quantile sort msort std std@unbiased std_mean sum topk trace
var var@unbiased var_mean linalg.vector_norm linalg.matrix_norm cov corrcoef dist renorm trapezoid
"""

SHAPES = """
T as_strided atleast_2d block_diag broadcast_tensors broadcast_to cat chunk clone column_stack contiguous diag
diag_embed diagonal diagonal_copy diagonal_scatter diff dstack expand expand_as flatten flip fliplr flipud
hstack mH mT meshgrid@variadic_tensors movedim narrow permute ravel repeat repeat_interleave reshape
resolve_conj roll rot90 select select_scatter slice slice_scatter split split@list_args split_with_sizes squeeze
squeeze@multiple stack t tensor_split tile transpose tril triu unbind unflatten unfold unsqueeze view view_as
view_as_complex vsplit vstack
"""

INDEXING = """
__getitem__ argwhere bincount bucketize gather index_add index_copy index_fill index_put index_reduce@mean
index_select masked_fill masked_scatter masked_select nonzero put scatter scatter_add scatter_reduce@amax
scatter_reduce@mean scatter_reduce@sum searchsorted take take_along_dim unique unique_consecutive isin histc
"""

LINALG = """
addbmm addmm addmv addr baddbmm bmm cdist cross dot einsum inner kron linalg.cholesky linalg.cholesky_ex
linalg.cross linalg.det linalg.eigh linalg.eigvalsh linalg.inv linalg.lu_factor linalg.matrix_power
linalg.multi_dot linalg.norm linalg.pinv linalg.qr linalg.slogdet linalg.solve linalg.solve_triangular
linalg.svd linalg.svdvals linalg.vecdot logdet matmul matrix_exp mm mv outer tensordot vdot __rmatmul__
"""

FACTORIES_AND_RANDOM = """
arange bernoulli empty_like eye fill full full_like linspace logspace multinomial new_full new_ones new_zeros
normal normal@in_place normal@number_mean ones ones_like rand_like randint randint_like randn randn_like uniform
exponential geometric log_normal cauchy zero_ zeros zeros_like tril_indices triu_indices scalar_tensor
nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d nn.functional.alpha_dropout
nn.functional.rrelu
"""

CONVERSIONS = "bfloat16 bool byte char double float half int long short to complex cfloat"

NEURAL = """
softmax softmax@with_dtype log_softmax log_softmax@with_dtype nn.functional.adaptive_avg_pool1d
nn.functional.adaptive_avg_pool2d nn.functional.adaptive_max_pool2d nn.functional.avg_pool1d
nn.functional.avg_pool2d nn.functional.avg_pool3d nn.functional.batch_norm nn.functional.bilinear
nn.functional.celu nn.functional.conv1d nn.functional.conv2d nn.functional.conv3d nn.functional.conv_transpose1d
nn.functional.conv_transpose2d nn.functional.cosine_similarity nn.functional.elu nn.functional.embedding
nn.functional.embedding_bag nn.functional.gelu nn.functional.glu nn.functional.grid_sample
nn.functional.group_norm nn.functional.hardshrink nn.functional.hardsigmoid nn.functional.hardswish
nn.functional.hardtanh nn.functional.instance_norm nn.functional.interpolate@area
nn.functional.interpolate@bicubic nn.functional.interpolate@bilinear nn.functional.interpolate@linear
nn.functional.interpolate@nearest nn.functional.layer_norm nn.functional.leaky_relu nn.functional.linear
nn.functional.local_response_norm nn.functional.logsigmoid nn.functional.max_pool1d nn.functional.max_pool2d
nn.functional.max_pool3d nn.functional.mish nn.functional.multi_head_attention_forward nn.functional.normalize
nn.functional.one_hot nn.functional.pad@circular nn.functional.pad@constant nn.functional.pad@reflect
nn.functional.pad@replicate nn.functional.pairwise_distance nn.functional.pixel_shuffle
nn.functional.pixel_unshuffle nn.functional.prelu nn.functional.relu nn.functional.relu6 nn.functional.rms_norm
nn.functional.scaled_dot_product_attention nn.functional.selu nn.functional.silu nn.functional.softmin
nn.functional.softplus nn.functional.softshrink nn.functional.softsign nn.functional.tanhshrink
nn.functional.threshold nn.functional.unfold native_layer_norm native_batch_norm nn.functional.upsample_nearest
nn.functional.channel_shuffle
"""

LOSSES = """
nn.functional.binary_cross_entropy nn.functional.binary_cross_entropy_with_logits
nn.functional.cosine_embedding_loss nn.functional.cross_entropy nn.functional.ctc_loss
nn.functional.gaussian_nll_loss nn.functional.hinge_embedding_loss nn.functional.huber_loss nn.functional.kl_div
nn.functional.l1_loss nn.functional.margin_ranking_loss nn.functional.mse_loss nn.functional.multi_margin_loss
nn.functional.multilabel_margin_loss nn.functional.multilabel_soft_margin_loss nn.functional.nll_loss
nn.functional.poisson_nll_loss nn.functional.smooth_l1_loss nn.functional.soft_margin_loss
nn.functional.triplet_margin_loss
"""

LISTED: tuple[str, ...] = tuple(
    " ".join(
        (ELEMENTWISE, REDUCTIONS, SHAPES, INDEXING, LINALG, FACTORIES_AND_RANDOM, CONVERSIONS, NEURAL, LOSSES)
    ).split()
)
