"""Kernel classes and short names, over the names that an H200 gave and those of other engines and backends."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from memgap.profiling.classes import CLASSES, UNCLASSIFIED, kernel_class, rules, short_name

HERE = Path(__file__).parent
RECORDED = sorted((HERE.parents[1] / "recorded/h200").glob("*.kernels.csv.gz"))


def h200_names() -> list[tuple[float, str]]:
    """Return GPU time in us and name of each kernel seen on an H200."""
    lines = (HERE / "data/kernel_names_h200.txt").read_text().splitlines()[1:]
    return [(float(time), name) for time, name in (line.split("\t") for line in lines)]


def test_nearly_all_gpu_time_of_an_h200_has_a_class() -> None:
    names = h200_names()
    assert len(names) > 100
    unknown = sum(time for time, name in names if kernel_class(name) == UNCLASSIFIED)
    assert unknown < 0.02 * sum(time for time, _ in names)
    assert [name for _, name in names if kernel_class(name) == UNCLASSIFIED] == []


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name[:30])
def test_recorded_kernels_have_classes(path: Path) -> None:
    with gzip.open(path, "rt") as file:
        table = pd.read_csv(file)
    classes = table["name"].map(kernel_class)
    assert table["duration_s"][classes == UNCLASSIFIED].sum() < 0.02 * table["duration_s"].sum()


H200 = {
    "FlashAttnFwdSm90": "attention",
    "FlashAttnFwdCombine": "attention",
    "prepare_varlen_num_blocks_kernel": "attention",
    "reshape_and_cache_flash_kernel": "kv_write",
    "splitKreduce_kernel": "matmul",
    "triton_red_fused_add_native_layer_norm_2": "norm",
    "triton_red_fused_fused_add_rms_norm_0": "norm",
    "triton_poi_fused_relu_1": "activation",
    "triton_poi_fused_mul_silu_slice_1": "activation",
    "triton_red_fused__to_copy_embedding_rms_norm_0": "embedding",
    "vectorized_gather_kernel": "embedding",
    "triton_poi_fused_3": "elementwise",
    "index_elementwise_kernel": "elementwise",
    "_gumbel_sample_kernel": "sampling",
    "_bias_kernel": "sampling",
    "reduce_kernel": "sampling",
    "_gather_block_tables_kernel": "input",
    "_prepare_pos_seq_lens_kernel": "input",
    "_combine_sampled_and_draft_tokens_kernel": "input",
    "Memcpy HtoD (Pinned -> Device)": "memory",
    "Memset (Device)": "memory",
    "memcpy32_post": "memory",
    "vectorized_elementwise_kernel": "memory",
}


def test_classes_by_hand_of_an_h200() -> None:
    found: dict[str, set[str]] = {}
    for _, name in h200_names():
        found.setdefault(short_name(name), set()).add(kernel_class(name))
    assert {name: found[name] for name in H200} == {name: {kind} for name, kind in H200.items()}
    gemms = [kinds for name, kinds in found.items() if name.startswith("nvjet")]
    assert gemms and all(kinds == {"matmul"} for kinds in gemms)


OTHERS = {
    "attention": """flash_fwd_kernel flash_fwd_splitkv_kernel flash_fwd_splitkv_combine_kernel paged_attention_v1_kernel
        paged_attention_v2_kernel paged_attention_v2_reduce_kernel kernel_unified_attention_2d
        kernel_unified_attention_3d reduce_segments _fwd_kernel fmha_cutlassF_f16_aligned_64x64_rf_sm80
        BatchDecodeWithPagedKVCacheKernel BatchPrefillWithRaggedKVCacheKernel PersistentVariableLengthMergeStatesKernel
        merge_attn_states_kernel""",
    "kv_write": "reshape_and_cache_kernel reshape_and_cache_kernel_flash concat_and_cache_mla_kernel",
    "matmul": """
        sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize32x32x64_stage6_warpsize2x2x1_tensor16x8x16_execute_kernel__5x_cublas
        sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas
        splitKreduce_kernel Kernel Kernel2 gemvx ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8_f2f_stages_64x5_tn
        Cijk_Alik_Bljk_SB_MT128x64x16_SN_1LDSB0 Cijk_Ailk_Bljk_HHS_BH_Bias_MT64x32
        Custom_Cijk_Alik_Bljk_BBS_BH rocblas_gemvn_kernel
        cutlass_80_tensorop_f16_s16816gemm_relu_f16_256x128_32x3_tn_align8 fused_moe_kernel""",
    "norm": "rms_norm_kernel fused_add_rms_norm_kernel vectorized_layer_norm_kernel RMSNormKernel",
    "activation": "act_and_mul_kernel triton_poi_fused_gelu_0",
    "embedding": "rotary_embedding_kernel indexSelectLargeIndex indexSelectSmallIndex",
    "sampling": """DeviceRadixSortExclusiveSumKernel DeviceRadixSortHistogramKernel DeviceRadixSortOnesweepKernel
        DeviceSegmentedRadixSortKernel sort_postprocess_kernel DeviceScanInitKernel DeviceScanKernel cunn_SoftMaxForward
        distribution_elementwise_grid_stride_kernel fill_index_and_segment_kernel fill_reverse_indices_kernel
        tensor_kernel_scan_innermost_dim TopKTopPSamplingFromProbKernel""",
    "elementwise": """_scatter_gather_elementwise_kernel elementwise_kernel index_elementwise_kernel
        unrolled_elementwise_kernel vectorized_elementwise_kernel""",
    "communication": """ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)
        cross_device_reduce_1stage""",
    "other": "reduce_kernel topkGatingSoftmax",
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in OTHERS.items() for name in names.split()])
def test_short_names_of_other_engines_and_backends(kind: str, name: str) -> None:
    assert kernel_class(name) == kind


def test_template_arguments_decide_over_the_wrapper() -> None:
    gemm = "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int>, relu> >(Params)"
    flash = "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<cutlass::half_t> > >(P)"
    assert (kernel_class(gemm), short_name(gemm)) == ("matmul", "GemmUniversal")
    assert (kernel_class(flash), short_name(flash)) == ("attention", "FlashAttnFwdSm90")
    assert kernel_class("void cutlass::Kernel2<cutlass_80_wmma_tensorop_f16_s161616gemm_f16>(P)") == "matmul"
    silu = "void at::native::vectorized_elementwise_kernel<4, at::native::silu_kernel(Base&)::{lambda()#1}>(int)"
    assert (kernel_class(silu), short_name(silu)) == ("activation", "vectorized_elementwise_kernel")


def test_what_no_rule_knows_is_told() -> None:
    assert kernel_class("device_kernel") == UNCLASSIFIED
    assert kernel_class("my_own_thing") == UNCLASSIFIED
    assert kernel_class("") == UNCLASSIFIED


def test_short_names_of_unusual_names() -> None:
    assert short_name("nvjet_sm90_hsh_64x8") == "nvjet_sm90_hsh_64x8"
    assert short_name("Memcpy DtoH (Device -> Pinned)") == "Memcpy DtoH (Device -> Pinned)"
    assert short_name("void (anonymous namespace)::fill<int, (a)1>(int)") == "fill"
    assert short_name("broken<<<") == "broken"
    assert short_name("") == ""


def test_rules_name_known_classes_only() -> None:
    assert {kind for kind, _ in rules()} == set(CLASSES) - {UNCLASSIFIED}
