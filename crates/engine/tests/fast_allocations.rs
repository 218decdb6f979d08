//! A training step of the fast engine allocates nothing once its memory is planned.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bninception_engine::model::{AuxOptions, Kind, Network, NetworkOptions, ParameterTable};
use bninception_engine::sgd::SgdStep;
use bninception_engine::{
    Alone, Dtype, EvaluationWeights, Executor, Fast, FastOptions, Hooks, Images, ModelState,
    TrainBatch, Update,
};

/// Counts allocations of all threads.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything on to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_allocation_per_step_after_the_first() {
    let base = NetworkOptions { classes: 10, image_size: 47, ..NetworkOptions::default() };
    let plain = NetworkOptions { batch_norm: None, conv_bias: true, ..base.clone() };
    let full = NetworkOptions { lrn: true, dropout: 0.4, ..base };
    let heads = NetworkOptions { aux: Some(AuxOptions::default()), ..plain.clone() };
    for (kind, options, dtype) in [
        (Kind::BnInception, full, Dtype::F32),
        (Kind::BnInception, plain, Dtype::Bf16),
        (Kind::GoogLeNet, heads, Dtype::F32),
    ] {
        let network = Network::new(kind, options).unwrap();
        let table = ParameterTable::new(&network);
        let state = ModelState::initial(&network, &table, 1, true);
        let options = FastOptions { threads: 3, dtype, ..FastOptions::default() };
        let mut engine = Fast::new(network.clone(), options).unwrap();
        let n = 4;
        let images = vec![0.5; n * network.layers[0].output.len()];
        let images = Images::Values(&images);
        let mut evaluated = Vec::new();
        engine.prepare_evaluation(EvaluationWeights::Given(&state.weights)).unwrap();
        engine.load(state).unwrap();
        let sgd = SgdStep {
            lr: 0.01,
            momentum: 0.9,
            weight_decay: 1e-4,
            nesterov: false,
            lr_factors: &[],
        };
        let class_weights = vec![1.5; network.options.classes];
        let mut counts = Vec::new();
        for step in 0..3 {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let batch = TrainBatch {
                images,
                labels: &[0, 1, 2, 3],
                label_smoothing: 0.1,
                class_weights: Some(&class_weights),
                own_share: None,
                seed: 0,
                number: step,
                bn_momentum: 0.1,
            };
            for _ in 0..2 {
                engine.gradients(&batch, Hooks::default()).unwrap();
            }
            engine.exchange(&mut Alone).unwrap();
            engine
                .update(&Update { sgd, clip_norm: 0.5, tell_norm: true, ema_decay: 0.9 })
                .unwrap();
            engine.evaluate(images, &mut evaluated).unwrap();
            counts.push(ALLOCATIONS.load(Ordering::Relaxed) - before);
        }
        assert!(counts[0] > 0, "the first step plans its memory");
        assert_eq!(counts[1..], [0, 0], "allocations of the steps");
    }
}
