//! The C interface of a generated model. `include/forge.h` is made from it.
//!
//! Nothing but this crate has `unsafe` for C's sake, and here only what the caller's pointers stand for has it (`memory`): handles are numbers
//! (`handles`), no pointer of the library outlives a call but texts that live as long as the program and the last message, and a panic ends at
//! `guard` (`failure`).

mod failure;
mod generation;
mod handles;
mod memory;
mod types;

use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

use model::runtime::serde_json;
use model::runtime::service::{Options, Service};
use model::runtime::weights::Embedded;

use failure::{Failure, guard, last_message};
use generation::{Generation, LEAST};
use handles::Handles;
use memory::{Place, copy, lent, path};

pub use failure::ForgeStatus;
pub use types::{ForgeFinish, ForgeGeneration, ForgeInfo, ForgeModel, ForgeOptions, ForgeSummary};

#[cfg(panic = "abort")]
compile_error!("the library answers panics with an error, which panic = \"abort\" leaves no room for");

/// As in programs: bounds what the checkpoint's chat template may take.
#[global_allocator]
static ALLOCATOR: model::runtime::memory::Allocator = model::runtime::memory::Allocator;

/// Version of this interface. It goes up with every change that a program compiled before would not survive.
pub const FORGE_ABI_VERSION: u32 = 1;

/// Hears a piece of a text: `bytes` bytes of UTF-8 and a zero byte after them, there until it returns; 0 ends the text. It must return: no
/// exception may leave it, and no longjmp. It may call any function of the library.
pub type ForgeOnText = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, bytes: usize) -> i32>;

static MODELS: Handles<Service> = Handles::new("model", 1);
static GENERATIONS: Handles<Generation> = Handles::new("generation", 3);

/// The weights, if they are part of the library.
fn embedded() -> Option<Embedded> {
    #[cfg(feature = "embed")]
    return Some(model::runtime::embedded_weights!());
    #[cfg(not(feature = "embed"))]
    None
}

/// The version of the library's interface: `FORGE_ABI_VERSION` of the header that it was built with.
#[unsafe(no_mangle)]
pub extern "C" fn forge_abi_version() -> u32 {
    FORGE_ABI_VERSION
}

/// What went wrong in this thread's last call that did not return `FORGE_STATUS_OK`: one line, there until the next such call in this thread;
/// empty where there was none.
#[unsafe(no_mangle)]
pub extern "C" fn forge_last_error() -> *const c_char {
    last_message()
}

/// The name of a status, there as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn forge_status_name(status: i32) -> *const c_char {
    ForgeStatus::name(status).as_ptr()
}

/// Loads the model, and writes its handle to `model`. `abi_version` is `FORGE_ABI_VERSION`, so that a program compiled with another header is told.
/// `weights` is the path of the weights file or of the folder that it is in; where it is null, they are looked for where the variable
/// FORGE_WEIGHTS says, in the library, beside the program and in the project. `context` are tokens of context of each slot; 0 for the model's
/// default.
///
/// On a Mac, a program should set the variable AGX_RELAX_CDM_CTXSTORE_TIMEOUT to 1 at its very start: without it the system ends long work of
/// a GPU that also draws the screen.
///
/// # Safety
/// `weights` is null or ends with a zero byte; `model` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_model_load(
    abi_version: u32,
    weights: *const c_char,
    context: usize,
    model: *mut *mut ForgeModel,
) -> ForgeStatus {
    guard(|| {
        if abi_version != FORGE_ABI_VERSION {
            let words = format!("the program was built for version {abi_version}, the library has {FORGE_ABI_VERSION}");
            return Err(Failure::new(ForgeStatus::Version, words));
        }
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(model, "place for the model") }?;
        place.write(std::ptr::null_mut());
        // SAFETY: the caller's word.
        let weights = unsafe { path(weights) }?;
        let options = Options { weights, embedded: embedded(), context: (context > 0).then_some(context) };
        let service = model::load(&options).map_err(|error| Failure::loading(&error))?;
        place.write(MODELS.insert(service));
        Ok(())
    })
}

/// Frees a model, and ends its texts; calls that wait for one return. A null pointer is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn forge_model_free(model: *mut ForgeModel) -> ForgeStatus {
    guard(|| {
        if !model.is_null() {
            MODELS.remove(model)?.close();
        }
        Ok(())
    })
}

/// Writes what the model is to `info`.
///
/// # Safety
/// `info` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_model_info(model: *const ForgeModel, info: *mut ForgeInfo) -> ForgeStatus {
    /// Name, architecture and source: a library has one model.
    static TEXTS: OnceLock<[CString; 3]> = OnceLock::new();
    guard(|| {
        let service = MODELS.get(model)?;
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(info, "place for what the model is") }?;
        let about = service.info();
        let text = |text: &str| CString::new(text.replace('\0', " ")).unwrap_or_default();
        let [name, architecture, source] =
            TEXTS.get_or_init(|| [about.name, about.architecture, about.source].map(text));
        place.write(ForgeInfo {
            name: name.as_ptr(),
            architecture: architecture.as_ptr(),
            source: source.as_ptr(),
            vocab_size: about.vocab_size,
            context: service.context(),
            trained_context: about.trained_context,
            slots: about.slots,
            parameters: about.parameters,
            weights_bytes: about.weights_bytes,
            has_chat_template: i32::from(!service.text().templates.is_empty()),
        });
        Ok(())
    })
}

/// Writes the tokens of a text to `tokens`, which has room for `capacity`, and their number to `count`. Where `tokens` is null, only their number
/// is asked for; where there is too little room, it is written too. `special` is not 0 to have the tokens that begin a text before it; the text of
/// a chat template has them already.
///
/// # Safety
/// `text` has `bytes` bytes; `tokens` is null or has room for `capacity` tokens; `count` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_tokenize(
    model: *const ForgeModel,
    text: *const c_char,
    bytes: usize,
    special: i32,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> ForgeStatus {
    guard(|| {
        let service = MODELS.get(model)?;
        // SAFETY: the caller's word.
        let count = unsafe { Place::new(count, "place for the number of tokens") }?;
        // SAFETY: the caller's word.
        let text = unsafe { memory::text(text, bytes, "text") }?;
        let ids = service.text().tokenizer.encode(text, special != 0)?;
        // SAFETY: the caller's word.
        unsafe { copy(&ids, None, tokens, capacity, &count) }
    })
}

/// Writes the text of tokens to `text`, which has room for `capacity` bytes, with a zero byte after it, and its length without that to `bytes`.
/// Where `text` is null, only its length is asked for; where there is too little room, it is written too. `special` is not 0 to have special
/// tokens written out. Tokens that the model does not know have no text.
///
/// # Safety
/// `tokens` has `count` tokens; `text` is null or has room for `capacity` bytes; `bytes` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_detokenize(
    model: *const ForgeModel,
    tokens: *const u32,
    count: usize,
    special: i32,
    text: *mut c_char,
    capacity: usize,
    bytes: *mut usize,
) -> ForgeStatus {
    guard(|| {
        let service = MODELS.get(model)?;
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(bytes, "place for the length") }?;
        // SAFETY: the caller's word.
        let ids = unsafe { lent(tokens, count, "tokens") }?;
        let decoded = service.text().tokenizer.decode(ids, special == 0)?;
        // SAFETY: the caller's word.
        unsafe { copy(decoded.as_bytes(), Some(0), text.cast(), capacity, &place) }
    })
}

/// Writes the prompt for a chat to `text`, as `forge_detokenize` does. `chat` is JSON: a list of messages, or an object with `messages` and other
/// variables of the checkpoint's template, as `tools`. The prompt opens the assistant's answer unless `add_generation_prompt` is false there.
///
/// # Safety
/// `chat` has `chat_bytes` bytes; `text` is null or has room for `capacity` bytes; `bytes` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_apply_chat_template(
    model: *const ForgeModel,
    chat: *const c_char,
    chat_bytes: usize,
    text: *mut c_char,
    capacity: usize,
    bytes: *mut usize,
) -> ForgeStatus {
    guard(|| {
        let service = MODELS.get(model)?;
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(bytes, "place for the length") }?;
        // SAFETY: the caller's word.
        let chat = unsafe { memory::text(chat, chat_bytes, "chat") }?;
        let wrong = |error| Failure::new(ForgeStatus::Argument, format!("the chat is no JSON: {error}"));
        let chat = serde_json::from_str(chat).map_err(wrong)?;
        // Whatever it is about, it concerns the chat.
        let prompt = service.text().prompt_of(&chat);
        let prompt = prompt.map_err(|error| Failure::new(ForgeStatus::Template, error.to_string()))?;
        // SAFETY: the caller's word.
        unsafe { copy(prompt.as_bytes(), Some(0), text.cast(), capacity, &place) }
    })
}

/// What a text is generated with where nothing else is said: the checkpoint's own sampling, up to the context's end.
#[unsafe(no_mangle)]
pub extern "C" fn forge_options_default() -> ForgeOptions {
    ForgeOptions::default()
}

/// Generates what follows `tokens`, and returns at its end; `on_text` hears each piece as it comes, on this thread. `options` may be null for
/// `forge_options_default`, `summary` where it is not wanted. Other threads may call at the same time: as many texts as the model has slots are
/// generated side by side, the others wait.
///
/// # Safety
/// `tokens` has `count` tokens; `options` is null or can be read, and its `stop` has `stop_count` texts; `on_text` may be called with `user`; `summary`
/// is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_generate(
    model: *const ForgeModel,
    tokens: *const u32,
    count: usize,
    options: *const ForgeOptions,
    on_text: ForgeOnText,
    user: *mut c_void,
    summary: *mut ForgeSummary,
) -> ForgeStatus {
    guard(|| {
        let service = MODELS.get(model)?;
        let hears = on_text.ok_or_else(|| Failure::new(ForgeStatus::Null, "on_text is a null pointer"))?;
        let wanted = !summary.is_null();
        // SAFETY: the caller's word.
        let place = wanted.then(|| unsafe { Place::new(summary, "place for the summary") }).transpose()?;
        // SAFETY: the caller's word.
        let request = unsafe { request(&service, tokens, count, options) }?;
        let done = service.generate(&request, |piece| {
            let mut text = Vec::with_capacity(piece.len() + 1);
            text.extend_from_slice(piece.as_bytes());
            text.push(0);
            // SAFETY: the caller says that it may be called with `user`; the text is there until it returns.
            unsafe { hears(user, text.as_ptr().cast(), piece.len()) != 0 }
        })?;
        place.iter().for_each(|place| place.write((&done).into()));
        Ok(())
    })
}

/// Starts to generate what follows `tokens`, and writes the handle of the text to `generation`, which has to be freed. `options` may be null as
/// for `forge_generate`. The model does not wait for who reads the text.
///
/// # Safety
/// `tokens` has `count` tokens; `options` is null or can be read, and its `stop` has `stop_count` texts; `generation` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_generation_start(
    model: *const ForgeModel,
    tokens: *const u32,
    count: usize,
    options: *const ForgeOptions,
    generation: *mut *mut ForgeGeneration,
) -> ForgeStatus {
    guard(|| {
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(generation, "place for the generation") }?;
        place.write(std::ptr::null_mut());
        let service = MODELS.get(model)?;
        // SAFETY: the caller's word.
        let request = unsafe { request(&service, tokens, count, options) }?;
        place.write(GENERATIONS.insert(Generation::new(service.stream(&request)?)));
        Ok(())
    })
}

/// Waits for more of the text, and writes as much of it to `text` as is there and has room, whole characters with a zero byte after them; their
/// length without that goes to `bytes`, 0 at the end. `capacity` is at least 5. Threads that read one text take turns.
///
/// # Safety
/// `text` is null or has room for `capacity` bytes; `bytes` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_generation_next(
    generation: *const ForgeGeneration,
    text: *mut c_char,
    capacity: usize,
    bytes: *mut usize,
) -> ForgeStatus {
    guard(|| {
        let generation = GENERATIONS.get(generation)?;
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(bytes, "place for the length") }?;
        place.write(0);
        if text.is_null() {
            return Err(Failure::new(ForgeStatus::Null, "the text is a null pointer"));
        }
        if capacity < LEAST {
            let words = format!("the buffer has room for {capacity}, {LEAST} are needed");
            return Err(Failure::new(ForgeStatus::Buffer, words));
        }
        let piece = generation.next(capacity - 1)?;
        // SAFETY: the caller's word.
        unsafe { copy(piece.as_bytes(), Some(0), text.cast(), capacity, &place) }
    })
}

/// Ends a text from any thread, with the next token or the next part of its prompt. Who reads it comes to its end.
#[unsafe(no_mangle)]
pub extern "C" fn forge_generation_cancel(generation: *const ForgeGeneration) -> ForgeStatus {
    guard(|| {
        GENERATIONS.get(generation)?.cancel();
        Ok(())
    })
}

/// Writes what a text came to, once it has been read to its end, to `summary`.
///
/// # Safety
/// `summary` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn forge_generation_summary(
    generation: *const ForgeGeneration,
    summary: *mut ForgeSummary,
) -> ForgeStatus {
    guard(|| {
        let generation = GENERATIONS.get(generation)?;
        // SAFETY: the caller's word.
        let place = unsafe { Place::new(summary, "place for the summary") }?;
        place.write(generation.summary()?);
        Ok(())
    })
}

/// Frees a text, and ends it where it is still on its way. A null pointer is left alone.
#[unsafe(no_mangle)]
pub extern "C" fn forge_generation_free(generation: *mut ForgeGeneration) -> ForgeStatus {
    guard(|| {
        if !generation.is_null() {
            GENERATIONS.remove(generation)?.cancel();
        }
        Ok(())
    })
}

/// What a caller asks for.
///
/// # Safety
/// `tokens` has `count` tokens; `options` is null or can be read, and its `stop` has `stop_count` texts.
unsafe fn request(
    service: &Service,
    tokens: *const u32,
    count: usize,
    options: *const ForgeOptions,
) -> Result<model::runtime::generation::Request, Failure> {
    // SAFETY: the caller's word.
    let prompt = unsafe { lent(tokens, count, "tokens") }?.to_vec();
    let options = if options.is_null() {
        ForgeOptions::default()
    } else {
        // SAFETY: the caller's word.
        unsafe { lent(options, 1, "options") }?[0]
    };
    model::runtime::generation::check_prompt(&prompt, service.info().vocab_size, service.context())?;
    // SAFETY: the caller's word.
    unsafe { options.request(prompt, service.text()) }
}
