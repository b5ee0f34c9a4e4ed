//! Plans of attention over latents: dispatches, how often the cache is read, bytes of a token, what is refused.

mod common;

use common::Sizes;
use forge_formats::Format;
use forge_frontend::graph::LatentSizes;
use forge_plan::families::LatentRows;
use forge_plan::{CacheType, Family, Kernel, Plan, PlanError, PlanOptions, costs, memory, plan};
use forge_spec::Role;

/// Those of DeepSeek-V3, with fewer layers and a feed-forward of a dense one.
const SIZES: Sizes = Sizes {
    hidden: 7168,
    ffn: 18_432,
    heads: 128,
    kv_heads: 1,
    head_dim: 192,
    vocab: 129_280,
    layers: 2,
    context: 163_840,
};
const V3: LatentSizes = LatentSizes { heads: 128, latent: 512, rope: 64, nope: 128, value: 128 };
/// Heads of GLM-4.7-Flash, and of DeepSeek-V2-Lite.
const FEWER: [LatentSizes; 2] =
    [LatentSizes { heads: 20, nope: 192, value: 256, ..V3 }, LatentSizes { heads: 16, ..V3 }];
const QUERY_LATENT: usize = 1536;

fn planned(latents: LatentSizes, query_latent: usize, by_key: bool) -> Plan {
    let graph = common::latents(SIZES, latents, query_latent, by_key, Format::Q8_0);
    plan(&graph, &PlanOptions::default()).expect("attention over latents has a plan")
}

/// Eight with a dense feed-forward: the projections of queries and latents, their append, queries over the cache, attention,
/// values, the output projection, and two for the feed-forward. Queries that come from a latent take one more, a
/// split context another.
#[test]
fn a_layer_is_eight_dispatches() {
    for (query_latent, each) in [(0, 8), (QUERY_LATENT, 9)] {
        let plan = planned(V3, query_latent, false);
        let outside = plan.decode.embed().len() + plan.decode.head().len() + plan.decode.sample().len();
        for (position, more) in [(0, 0), (8191, 1)] {
            let layers = costs::decode(&plan, position).dispatches() as usize - outside;
            assert_eq!(layers, (each + more) * plan.layers.len(), "{query_latent} at {position}");
        }
        // The append and the queries over the cache do not wait for one another where both come from one projection.
        let steps = &plan.decode.blocks()[0];
        let queries = steps.iter().find(|step| step.args.contains_key(&Role::Q)).expect("queries");
        assert_eq!(queries.barrier, query_latent > 0);
    }
}

/// Up to sixteen heads at least share a read of the cache, where there are so many.
#[test]
fn the_cache_is_read_once_for_sixteen_heads() {
    for latents in [V3].into_iter().chain(FEWER) {
        let plan = planned(latents, QUERY_LATENT, true);
        for (rows, position) in [(LatentRows::Whole, 200), (LatentRows::Part, 8191)] {
            let of_rows = |kernel: &&Kernel| matches!(&kernel.family, Family::LatentAttention(of) if of.rows == rows);
            let kernel = plan.kernels.iter().find(of_rows).expect("a kernel for these rows");
            let cost = costs::dispatch(kernel, costs::StepSize { rows: 1, position, slots: 1 });
            let at = kernel.bindings.iter().position(|binding| binding.role == Role::Latents).expect("the cache");
            let traffic = cost.bindings[at];
            assert_eq!(traffic.read, ((position + 1) * 576 * 2) as u64);
            let times = traffic.requested as f64 / traffic.read as f64;
            println!("{} heads: the cache is read {times} times", latents.heads);
            assert!(times <= latents.heads as f64 / 16.0, "{} heads: {times}", latents.heads);
        }
    }
}

#[test]
fn decode_traffic_stays_near_the_lower_bound() {
    for latents in [V3].into_iter().chain(FEWER) {
        for by_key in [false, true] {
            let plan = planned(latents, QUERY_LATENT, by_key);
            for (position, bound) in [(0, 1.02), (8191, 1.05)] {
                let cost = costs::decode(&plan, position);
                let ratio = cost.bytes() as f64 / cost.lower_bound as f64;
                println!("{} heads at context {}: {ratio:.4} of the lower bound", latents.heads, position + 1);
                assert!((1.0..=bound).contains(&ratio), "{latents:?} at {position}: {ratio}");
            }
        }
    }
}

/// 576 numbers a position and layer, whatever the heads.
#[test]
fn the_cache_holds_latents_alone() {
    for (kv, bytes) in [(CacheType::F16, 2 * 576), (CacheType::F32, 4 * 576), (CacheType::Q8_0, 576 + 2 * 18 + 4)] {
        let graph = common::latents(SIZES, V3, QUERY_LATENT, false, Format::Q8_0);
        let plan = plan(&graph, &PlanOptions { kv, slots: 3, ..PlanOptions::default() }).expect("a plan");
        assert_eq!(memory::kv_bytes_per_token(&plan), 3 * 2 * bytes, "{kv:?}");
        assert_eq!(memory::recurrent_bytes(&plan), 0);
        assert_eq!(memory::rewind(&plan), None);
    }
}

/// Long tiles make keys and values of all heads, once for all of their rows: far fewer operations than products with latents.
#[test]
fn long_tiles_make_keys_and_values() {
    for latents in [V3].into_iter().chain(FEWER) {
        let graph = common::latents(Sizes { layers: 47, ..SIZES }, latents, QUERY_LATENT, false, Format::Q8_0);
        for kv in [CacheType::F16, CacheType::F32] {
            let options = PlanOptions { kv, tile: Some(2048), ..PlanOptions::default() };
            let plan = plan(&graph, &options).expect("a plan");
            let from = plan.expands_from.expect("it pays");
            let made = latents.heads * (latents.nope + latents.rope + latents.value);
            assert_eq!(memory::activation_bytes_per_token(&plan), kv.bytes(made) as u64);
            // The same plan, whose tiles are never long enough.
            let absorbed = Plan { expands_from: Some(usize::MAX), ..plan.clone() };
            let attention = |plan: &Plan, tokens: usize, position: usize| -> u64 {
                let pass = costs::prompt(plan, tokens, position);
                let of =
                    |name: &str| name.starts_with("latent_") || name.starts_with("expand_") || name == "attention_tile";
                pass.kernels.iter().filter(|total| of(&plan.kernels[total.kernel].name)).map(|total| total.flops).sum()
            };
            let ratio = |tokens, position| {
                attention(&plan, tokens, position) as f64 / attention(&absorbed, tokens, position) as f64
            };
            let (at_start, far_in) = (ratio(8192, 0), ratio(2048, 60_000));
            println!("{} heads, {}: from {from} rows on; {at_start:.2}, {far_in:.2}", latents.heads, kv.name());
            assert!(from < 128 && at_start < 0.7 && far_in < 0.7, "{latents:?}");
            // Of fewer rows nothing changes.
            assert_eq!(costs::prompt(&plan, from - 8, 60_000), costs::prompt(&absorbed, from - 8, 60_000));
        }
        // Scales of a block are another way to hold a cache, which what is made does not have.
        let quantised = PlanOptions { kv: CacheType::Q8_0, ..PlanOptions::default() };
        assert_eq!(plan(&graph, &quantised).expect("a plan").expands_from, None);
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let refused = |latents: LatentSizes, kv: CacheType| {
        let graph = common::latents(SIZES, latents, QUERY_LATENT, false, Format::F16);
        let options = PlanOptions { kv, ..PlanOptions::default() };
        plan(&graph, &options).expect_err("a refusal").to_string()
    };
    let f16 = CacheType::F16;
    assert_eq!(
        refused(LatentSizes { rope: 16, ..V3 }, CacheType::Q8_0),
        "--kv q8_0: heads of 16 elements are no whole number of its blocks of 32"
    );
    for (latents, words) in [
        (LatentSizes { latent: 508, ..V3 }, "latents of 508 elements, no multiple of 8"),
        (LatentSizes { rope: 60, ..V3 }, "shared keys of 60 elements, no multiple of 8"),
        (LatentSizes { latent: 640, ..V3 }, "latents of 640 + 64 elements; there may be 640"),
        (LatentSizes { value: 126, ..V3 }, "heads of 126 elements, no multiple of 4"),
    ] {
        assert_eq!(refused(latents, f16), format!("block layer: no kernel for {words}"));
    }
    let graph = common::latents(SIZES, V3, 0, true, Format::Q8_0);
    let other = graph.blocks[0].nodes.iter().position(|node| node.inputs.len() == 2 && node.output.is_some());
    let mut apart = graph;
    apart.blocks[0].nodes[other.expect("attention")].inputs.swap(0, 1);
    assert!(matches!(plan(&apart, &PlanOptions::default()), Err(PlanError::Unsupported { .. })));
}
