//! The C interface, called with a model that is a hash function: what takes a model that is slow, or that panics.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use forge_capi::*;
use model::PANICS;

/// A model that is freed at its end.
struct Model(*mut ForgeModel);

// SAFETY: every function may be called from any thread.
unsafe impl Sync for Model {}

impl Model {
    fn load(kind: &str) -> Self {
        let (mut model, kind) = (null_mut(), CString::new(kind).expect("no zero"));
        // SAFETY: a text with its zero, and a place of our own.
        let status = unsafe { forge_model_load(FORGE_ABI_VERSION, kind.as_ptr(), 256, &raw mut model) };
        assert_eq!(status, ForgeStatus::Ok, "{}", message());
        Self(model)
    }

    fn start(&self, tokens: &[u32], options: &ForgeOptions) -> Text {
        let mut text = null_mut();
        // SAFETY: slices and places of our own.
        let status = unsafe { forge_generation_start(self.0, tokens.as_ptr(), tokens.len(), options, &raw mut text) };
        assert_eq!(status, ForgeStatus::Ok, "{}", message());
        Text(text)
    }

    /// The whole text, most probable tokens.
    fn text(&self, tokens: &[u32]) -> Result<String, ForgeStatus> {
        self.start(tokens, &greedy(12)).read()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        forge_model_free(self.0);
    }
}

/// A text that is freed at its end.
struct Text(*mut ForgeGeneration);

// SAFETY: every function may be called from any thread.
unsafe impl Sync for Text {}

impl Text {
    fn read(&self) -> Result<String, ForgeStatus> {
        let mut all = String::new();
        loop {
            let (mut piece, mut bytes) = ([0_u8; 7], 0);
            // SAFETY: a buffer and a place of our own.
            let status = unsafe { forge_generation_next(self.0, piece.as_mut_ptr().cast(), 7, &raw mut bytes) };
            if status != ForgeStatus::Ok {
                return Err(status);
            }
            assert_eq!(piece[bytes], 0);
            if bytes == 0 {
                return Ok(all);
            }
            all += std::str::from_utf8(&piece[..bytes]).expect("whole characters");
        }
    }

    fn finish(&self) -> ForgeFinish {
        let mut summary = std::mem::MaybeUninit::uninit();
        // SAFETY: a place of our own.
        let status = unsafe { forge_generation_summary(self.0, summary.as_mut_ptr()) };
        assert_eq!(status, ForgeStatus::Ok, "{}", message());
        // SAFETY: it was written.
        unsafe { summary.assume_init() }.finish
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        forge_generation_free(self.0);
    }
}

fn message() -> String {
    // SAFETY: this thread's message lives until its next failure.
    unsafe { CStr::from_ptr(forge_last_error()) }.to_str().expect("UTF-8").to_owned()
}

fn greedy(max_tokens: usize) -> ForgeOptions {
    ForgeOptions { max_tokens, temperature: 0.0, ..forge_options_default() }
}

#[test]
fn a_panic_while_loading_is_an_error() {
    let mut model = null_mut();
    // SAFETY: a text with its zero, and a place of our own.
    let status = unsafe { forge_model_load(FORGE_ABI_VERSION, c"panics".as_ptr(), 0, &raw mut model) };
    assert_eq!((status, message().as_str()), (ForgeStatus::Load, "the model has stopped"));
    assert!(model.is_null());
}

#[test]
fn a_panic_of_the_model_ends_its_texts_and_not_the_model() {
    let model = Model::load("");
    let whole = model.text(&[1, 2, 3]).expect("a text");
    assert_eq!(model.text(&[1, PANICS, 3]), Err(ForgeStatus::Generation));
    assert_eq!(message(), "the model failed on this request");
    assert_eq!(model.text(&[1, 2, 3]).as_ref(), Ok(&whole));
}

#[test]
fn texts_come_in_whole_characters() {
    // A hash function says anything, among it characters of several bytes, which pieces of six bytes have to leave whole.
    let model = Model::load("");
    let texts: Vec<String> = (0..40).map(|token| model.text(&[1, token + 300]).expect("a text")).collect();
    assert!(texts.iter().any(|text| text.bytes().any(|byte| byte > 127)));
}

#[test]
fn a_text_is_ended_from_another_thread() {
    let model = Model::load("slow");
    // Nothing is free for the third of them.
    let texts = [1, 2, 3].map(|token| model.start(&[1, token], &greedy(0)));
    std::thread::scope(|scope| {
        let reads = texts.each_ref().map(|text| scope.spawn(|| text.read().map(|_| text.finish())));
        for text in [&texts[2], &texts[0]] {
            assert_eq!(forge_generation_cancel(text.0), ForgeStatus::Ok);
        }
        let ends = reads.map(|read| read.join().expect("no panic"));
        // One that had a slot already has a text that was ended; the others are as they were.
        assert!(matches!(ends[0], Ok(ForgeFinish::Cancelled) | Err(ForgeStatus::Cancelled)), "{:?}", ends[0]);
        assert!(matches!(ends[1], Ok(ForgeFinish::Length | ForgeFinish::Stop)), "{:?}", ends[1]);
        assert_eq!(ends[2], Err(ForgeStatus::Cancelled));
    });
}

#[test]
fn more_texts_than_slots_take_turns() {
    let model = Model::load("slow");
    let alone = model.text(&[1, 2, 3]).expect("a text");
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert_eq!(model.text(&[1, 2, 3]).as_ref(), Ok(&alone)));
        }
    });
}

#[test]
fn callbacks_may_call_the_library() {
    static PIECES: AtomicUsize = AtomicUsize::new(0);
    /// Generates another text of the same model, and frees the model.
    unsafe extern "C" fn nested(user: *mut c_void, _: *const c_char, _: usize) -> i32 {
        let model = std::mem::ManuallyDrop::new(Model(user.cast()));
        if PIECES.fetch_add(1, Ordering::SeqCst) == 0 {
            assert!(!model.text(&[4, 5]).expect("a text").is_empty());
            assert_eq!(forge_model_free(model.0), ForgeStatus::Ok);
        }
        1
    }
    let model = Model::load("slow");
    let (tokens, options) = ([1, 2, 3], greedy(0));
    let mut summary = std::mem::MaybeUninit::uninit();
    // SAFETY: slices and places of our own.
    let status = unsafe {
        forge_generate(
            model.0,
            tokens.as_ptr(),
            3,
            &raw const options,
            Some(nested),
            model.0.cast(),
            summary.as_mut_ptr(),
        )
    };
    assert_eq!(status, ForgeStatus::Ok, "{}", message());
    // SAFETY: it was written.
    assert_eq!(unsafe { summary.assume_init() }.finish, ForgeFinish::Cancelled);
    // SAFETY: nothing is written.
    assert_eq!(unsafe { forge_model_info(model.0, null_mut()) }, ForgeStatus::Handle);
    // SAFETY: nothing is read.
    assert_eq!(unsafe { forge_generation_start(null(), null(), 0, null(), null_mut()) }, ForgeStatus::Null);
}
