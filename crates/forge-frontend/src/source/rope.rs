//! RoPE parameters from either dialect: `rope.*` metadata and divisor tensors of a GGUF, `rope_theta` with
//! `rope_scaling` or `rope_parameters` of a config.json.

use serde_json::{Map, Value};

use super::{Dialect, Key, Loaded, Stored, hparams::key};
use crate::graph::{LongRope, Rope, RopePairing};
use crate::rope::{RopeScaling, Yarn, frequencies, longrope_magnitude, yarn_magnitude};
use crate::{FrontendError, Refusal};
use forge_formats::Format;

const DEFAULT_THETA: f32 = 10_000.0;
const THETA: Key = Key::new("rope.freq_base", "rope_theta");
const ROTARY_DIM: Key = Key::new("rope.dimension_count", "");
/// That of windowed layers, where they have their own.
const SLIDING_ROTARY_DIM: Key = Key::new("rope.dimension_count_swa", "");
const PARTIAL: Key = Key::new("", "partial_rotary_factor");
const SCALING_TYPE: Key = Key::new("rope.scaling.type", "");
const SCALING_FACTOR: Key = Key::new("rope.scaling.factor", "");
/// What early GGUFs have instead of type and factor.
const SCALE_LINEAR: Key = Key::new("rope.scale_linear", "");
/// What stretches the base, where the base is not stretched already.
const SCALING_ALPHA: Key = Key::new("rope.scaling.alpha", "");
const ATTN_FACTOR: Key = Key::new("rope.scaling.attn_factor", "");
const ORIGINAL_CONTEXT: Key = Key::new("rope.scaling.original_context_length", "original_max_position_embeddings");
const YARN_BETA_FAST: Key = Key::new("rope.scaling.yarn_beta_fast", "");
const YARN_BETA_SLOW: Key = Key::new("rope.scaling.yarn_beta_slow", "");
const YARN_LOG_MULTIPLIER: Key = Key::new("rope.scaling.yarn_log_multiplier", "");
/// Longrope's divisors for texts within the original context, and beyond it.
const SHORT_FACTORS: &str = "rope_factors_short.weight";
const LONG_FACTORS: &str = "rope_factors_long.weight";
const ROPE_PARAMETERS: Key = Key::new("", "rope_parameters");
const ROPE_SCALING: Key = Key::new("", "rope_scaling");

/// Which RoPE of a model with several; a model with one has `All`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RopeLayers {
    All,
    /// All, of a model whose `dynamic` scaling is a base that is stretched by a fixed `alpha` (Hunyuan).
    Stretched,
    /// All, of a model whose YaRN keeps the ends of its ramp as they are, for which a GGUF has no key (gpt-oss).
    Unrounded,
    /// Global layers of a model that also has windowed ones.
    Full,
    /// Windowed layers; `theta` is the key of their own base and its default.
    Sliding {
        theta: Key,
        default: f32,
    },
}

impl RopeLayers {
    fn layer_type(self) -> &'static str {
        match self {
            Self::All | Self::Stretched | Self::Unrounded | Self::Full => "full_attention",
            Self::Sliding { .. } => "sliding_attention",
        }
    }
}

impl Loaded {
    /// The RoPE of the given layers. `halved_in_gguf` is the pairing of this architecture's GGUFs; Hugging Face
    /// folders always pair halves.
    ///
    /// # Errors
    /// A missing or unfit parameter, or a scaling that is not built, by its name.
    pub fn rope(&self, head_dim: usize, in_gguf: RopePairing, layers: RopeLayers) -> Result<Rope, FrontendError> {
        let (pairing, rotary_dim, theta, scaling) = match self.hparams.dialect {
            Dialect::Gguf => {
                let sliding = match layers {
                    RopeLayers::Sliding { .. } => self.hparams.opt_usize(SLIDING_ROTARY_DIM)?,
                    _ => None,
                };
                let rotary_dim = sliding.or(self.hparams.opt_usize(ROTARY_DIM)?).unwrap_or(head_dim);
                self.check_rotary(ROTARY_DIM, rotary_dim, head_dim)?;
                let (theta, scaling) = self.gguf_rope(rotary_dim, layers)?;
                (in_gguf, rotary_dim, theta, scaling)
            }
            Dialect::HuggingFace => {
                let (rotary_dim, theta, scaling) = self.hf_rope(head_dim, layers)?;
                (RopePairing::Halves, rotary_dim, theta, scaling)
            }
        };
        if !(theta > 0.0 && theta.is_finite()) {
            return Err(self.hparams.invalid(Refusal::RopeBase, THETA, "a positive number"));
        }
        let (inv_freq, magnitude) = frequencies(theta, rotary_dim, &scaling);
        let long = self.long_factors(rotary_dim, layers)?.map(|(above, divisors)| LongRope {
            above,
            inv_freq: frequencies(theta, rotary_dim, &RopeScaling::Divisors { divisors, magnitude }).0,
        });
        Ok(Rope { pairing, rotary_dim, inv_freq, magnitude, long })
    }

    /// The base of the global layers.
    pub fn rope_theta(&self) -> Result<f32, FrontendError> {
        let h = &self.hparams;
        let stated = match h.dialect {
            Dialect::Gguf => None,
            Dialect::HuggingFace => {
                let (name, object) = self.rope_object(RopeLayers::Full)?;
                Params { loaded: self, name, object }.opt_f32("rope_theta")?
            }
        };
        Ok(stated.or(h.opt_f32(THETA)?).unwrap_or(DEFAULT_THETA))
    }

    /// YaRN's factor on cos and sin by `mscale_all_dim`, which latent attention has in its scores rather than there: 1 without
    /// YaRN. A GGUF holds a tenth of that number (llama.cpp's "log multiplier").
    pub fn yarn_score_factor(&self) -> Result<f32, FrontendError> {
        let h = &self.hparams;
        match h.dialect {
            Dialect::Gguf => match (h.opt_str(SCALING_TYPE)?, h.opt_f32(YARN_LOG_MULTIPLIER)?) {
                (Some("yarn"), Some(tenth)) => Ok(yarn_magnitude(h.f32(SCALING_FACTOR)?, 10.0 * tenth)),
                _ => Ok(1.0),
            },
            Dialect::HuggingFace => {
                let (name, object) = self.rope_object(RopeLayers::All)?;
                let params = Params { loaded: self, name, object };
                let kind = params.opt_str("rope_type")?.or(params.opt_str("type")?).unwrap_or("default");
                match params.opt_f32("mscale_all_dim")? {
                    Some(all) if kind != "default" && all != 0.0 => Ok(yarn_magnitude(params.f32("factor")?, all)),
                    _ => Ok(1.0),
                }
            }
        }
    }

    /// A number of the global layers' RoPE object in a config.json.
    pub fn rope_number(&self, key: &str) -> Result<Option<f32>, FrontendError> {
        let (name, object) = self.rope_object(RopeLayers::Full)?;
        Params { loaded: self, name, object }.opt_f32(key)
    }

    /// The longest text for which longrope's short factors hold, and the long ones; `None` without longrope, or where no
    /// text is longer.
    fn long_factors(&self, rotary_dim: usize, layers: RopeLayers) -> Result<Option<(usize, Vec<f32>)>, FrontendError> {
        let found = match self.hparams.dialect {
            Dialect::Gguf => match self.divisors(LONG_FACTORS, rotary_dim / 2)? {
                None => None,
                Some(divisors) => Some((self.hparams.usize(ORIGINAL_CONTEXT)?, divisors)),
            },
            Dialect::HuggingFace => {
                let (name, object) = self.rope_object(layers)?;
                let params = Params { loaded: self, name, object };
                match params.get("long_factor") {
                    None => None,
                    Some(_) => {
                        Some((self.original_context(&params)? as usize, params.array("long_factor", rotary_dim / 2)?))
                    }
                }
            }
        };
        let context = self.hparams.usize(key::CONTEXT)?;
        Ok(found.filter(|(above, _)| *above > 0 && *above < context))
    }

    fn original_context(&self, params: &Params<'_>) -> Result<f32, FrontendError> {
        match params.opt_f32("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => Ok(self.hparams.usize(ORIGINAL_CONTEXT)? as f32),
        }
    }

    fn check_rotary(&self, key: Key, rotary_dim: usize, head_dim: usize) -> Result<(), FrontendError> {
        // Heads are a few hundred wide; the bound keeps a damaged size from becoming a huge table.
        const WIDEST: usize = 1 << 16;
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim || rotary_dim > WIDEST {
            return Err(FrontendError::KeyValue {
                refusal: Refusal::RotaryWidth,
                file: self.hparams.file.clone(),
                key: self.hparams.spelling(key),
                expected: format!("an even number of rotating elements, at most the head's {head_dim}"),
                found: rotary_dim.to_string(),
            });
        }
        Ok(())
    }

    fn gguf_rope(&self, rotary_dim: usize, layers: RopeLayers) -> Result<(f32, RopeScaling), FrontendError> {
        let h = &self.hparams;
        let mut theta = h.opt_f32(THETA)?.unwrap_or(DEFAULT_THETA);
        if let (RopeLayers::Stretched, Some(alpha)) = (layers, h.opt_f32(SCALING_ALPHA)?) {
            theta = stretched(theta, alpha, rotary_dim);
        }
        if let RopeLayers::Sliding { theta, default } = layers {
            return Ok((h.opt_f32(theta)?.unwrap_or(default), RopeScaling::None));
        }
        if let Some(divisors) = self.divisors("rope_freqs.weight", rotary_dim / 2)? {
            return Ok((theta, RopeScaling::Divisors { divisors, magnitude: 1.0 }));
        }
        if let Some(divisors) = self.divisors(SHORT_FACTORS, rotary_dim / 2)? {
            let magnitude = h.opt_f32(ATTN_FACTOR)?.unwrap_or(1.0);
            return Ok((theta, RopeScaling::Divisors { divisors, magnitude }));
        }
        let factor = || h.f32(SCALING_FACTOR);
        let scaling = match h.opt_str(SCALING_TYPE)? {
            None => match h.opt_f32(SCALE_LINEAR)? {
                Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
                _ => RopeScaling::None,
            },
            Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: factor()? },
            Some("yarn") => {
                let factor = factor()?;
                // transformers' `mscale_all_dim`, with an `mscale` of 1.
                let all = h.opt_f32(YARN_LOG_MULTIPLIER)?.map_or(1.0, |all| yarn_magnitude(factor, all));
                RopeScaling::Yarn(Yarn {
                    factor,
                    original_context: h.usize(ORIGINAL_CONTEXT)? as f32,
                    beta_fast: h.opt_f32(YARN_BETA_FAST)?.unwrap_or(32.0),
                    beta_slow: h.opt_f32(YARN_BETA_SLOW)?.unwrap_or(1.0),
                    truncate: !matches!(layers, RopeLayers::Unrounded),
                    magnitude: h.opt_f32(ATTN_FACTOR)?.unwrap_or(1.0) * yarn_magnitude(factor, 1.0) / all,
                })
            }
            Some(_) => {
                return Err(h.unsupported(
                    Refusal::ScalingType,
                    SCALING_TYPE,
                    "the RoPE scalings are none, linear, yarn and rope_freqs",
                ));
            }
        };
        Ok((theta, scaling))
    }

    /// The values of an F32 tensor of divisors, where the checkpoint has it.
    pub fn divisors(&self, name: &str, len: usize) -> Result<Option<Vec<f32>>, FrontendError> {
        if !self.tensors.entries.contains_key(name) {
            return Ok(None);
        }
        let weight = self.tensors.find(name)?;
        if weight.shape != [len] {
            return Err(FrontendError::TensorShape {
                refusal: Refusal::DivisorShape,
                file: weight.file.clone(),
                tensor: name.to_owned(),
                expected: vec![len],
                found: weight.shape.clone(),
            });
        }
        let Stored::Rows(Format::F32, range) = &weight.stored else {
            return Err(FrontendError::TensorType {
                refusal: Refusal::DivisorType,
                file: weight.file.clone(),
                tensor: name.to_owned(),
                expected: "F32",
                found: weight.stored_name(),
            });
        };
        let bytes = self.bytes(range);
        let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Some(values))
    }

    fn hf_rope(&self, head_dim: usize, layers: RopeLayers) -> Result<(usize, f32, RopeScaling), FrontendError> {
        let h = &self.hparams;
        let (name, object) = self.rope_object(layers)?;
        let params = Params { loaded: self, name, object };
        let theta = match params.opt_f32("rope_theta")? {
            Some(theta) => theta,
            None => match layers {
                RopeLayers::Sliding { theta, default } => h.opt_f32(theta)?.unwrap_or(default),
                _ => h.opt_f32(THETA)?.unwrap_or(DEFAULT_THETA),
            },
        };
        let partial = match params.opt_f32("partial_rotary_factor")? {
            Some(factor) => factor,
            None => h.opt_f32(PARTIAL)?.unwrap_or(1.0),
        };
        let kind = params.opt_str("rope_type")?.or(params.opt_str("type")?).unwrap_or("default");
        let mut rotary_dim = (f64::from(partial) * head_dim as f64) as usize;
        if kind == "proportional" {
            // Pairs span the whole head; the share says how many of them turn.
            rotary_dim = head_dim;
        }
        self.check_rotary(PARTIAL, rotary_dim, head_dim)?;
        let stretch = match layers {
            RopeLayers::Stretched if kind == "dynamic" => params.opt_f32("alpha")?.filter(|&alpha| alpha != 0.0),
            _ => None,
        };
        let theta = stretch.map_or(theta, |alpha| stretched(theta, alpha, rotary_dim));
        let scaling = match kind {
            "proportional" => RopeScaling::Proportional {
                pairs: (f64::from(partial) * head_dim as f64 / 2.0) as usize,
                factor: params.opt_f32("factor")?.unwrap_or(1.0),
            },
            "dynamic" if stretch.is_some() => RopeScaling::None,
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: params.f32("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: params.f32("factor")?,
                low_freq_factor: params.f32("low_freq_factor")?,
                high_freq_factor: params.f32("high_freq_factor")?,
                original_context: params.f32("original_max_position_embeddings")?,
            },
            "longrope" | "su" | "yarn" if params.get("short_factor").is_some() => {
                self.hf_longrope(&params, rotary_dim)?
            }
            "yarn" => RopeScaling::Yarn(self.hf_yarn(&params)?),
            other => {
                return Err(FrontendError::UnsupportedFeature {
                    refusal: Refusal::RopeType,
                    file: h.file.clone(),
                    key: format!("{}{}.rope_type", h.prefix, params.name),
                    found: format!("{other:?}"),
                    reason: "the RoPE scalings are default, linear, llama3, yarn, longrope and proportional".to_owned(),
                });
            }
        };
        Ok((rotary_dim, theta, scaling))
    }

    fn hf_yarn(&self, params: &Params<'_>) -> Result<Yarn, FrontendError> {
        let factor = params.f32("factor")?;
        let original_context = match params.opt_f32("original_max_position_embeddings")? {
            Some(original) => original,
            None => self.hparams.usize(key::CONTEXT)? as f32,
        };
        let magnitude =
            match (params.opt_f32("attention_factor")?, params.opt_f32("mscale")?, params.opt_f32("mscale_all_dim")?) {
                (Some(magnitude), ..) => magnitude,
                (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => {
                    yarn_magnitude(factor, mscale) / yarn_magnitude(factor, all)
                }
                _ => yarn_magnitude(factor, 1.0),
            };
        Ok(Yarn {
            factor,
            original_context,
            beta_fast: params.opt_f32("beta_fast")?.unwrap_or(32.0),
            beta_slow: params.opt_f32("beta_slow")?.unwrap_or(1.0),
            truncate: params.opt_bool("truncate")?.unwrap_or(true),
            magnitude,
        })
    }

    fn hf_longrope(&self, params: &Params<'_>, rotary_dim: usize) -> Result<RopeScaling, FrontendError> {
        let context = self.hparams.usize(key::CONTEXT)? as f32;
        let original = self.original_context(params)?;
        let magnitude = match (params.opt_f32("attention_factor")?, params.opt_f32("factor")?) {
            (Some(magnitude), _) => magnitude,
            (None, factor) => longrope_magnitude(factor.unwrap_or(context / original), original),
        };
        let divisors = params.array("short_factor", rotary_dim / 2)?;
        Ok(RopeScaling::Divisors { divisors, magnitude })
    }

    /// The object that holds the scaling of these layers, with its name for errors.
    fn rope_object(&self, layers: RopeLayers) -> Result<(String, Map<String, Value>), FrontendError> {
        let h = &self.hparams;
        let object = |key: Key| match h.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(h.invalid(Refusal::RopeObject, key, "an object")),
        };
        if let Some(map) = object(ROPE_PARAMETERS)? {
            let kind = layers.layer_type();
            return match map.get(kind) {
                Some(Value::Object(inner)) => Ok((format!("rope_parameters.{kind}"), inner.clone())),
                _ => Ok(("rope_parameters".to_owned(), map.clone())),
            };
        }
        // The older dialect scales the global layers alone.
        let scaled = !matches!(layers, RopeLayers::Sliding { .. });
        let map = object(ROPE_SCALING)?.filter(|_| scaled);
        Ok(("rope_scaling".to_owned(), map.cloned().unwrap_or_default()))
    }
}

/// `theta * alpha^(dim / (dim - 2))`: the slowest pair turns `alpha` times as slowly, the fastest as before ("NTK-aware").
fn stretched(theta: f32, alpha: f32, dim: usize) -> f32 {
    (f64::from(theta) * f64::from(alpha).powf(dim as f64 / (dim as f64 - 2.0))) as f32
}

/// A RoPE object of a config.json.
struct Params<'a> {
    loaded: &'a Loaded,
    name: String,
    object: Map<String, Value>,
}

impl Params<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn invalid(&self, refusal: Refusal, key: &str, expected: &str) -> FrontendError {
        let h = &self.loaded.hparams;
        FrontendError::KeyValue {
            refusal,
            file: h.file.clone(),
            key: format!("{}{}.{key}", h.prefix, self.name),
            expected: expected.to_owned(),
            found: self.get(key).map_or_else(|| "nothing".to_owned(), super::brief),
        }
    }

    fn opt_f32(&self, key: &str) -> Result<Option<f32>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| self.invalid(Refusal::RopeNumber, key, "a number"))
    }

    fn f32(&self, key: &str) -> Result<f32, FrontendError> {
        self.opt_f32(key)?.ok_or_else(|| self.invalid(Refusal::MissingRopeNumber, key, "a number"))
    }

    fn opt_bool(&self, key: &str) -> Result<Option<bool>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.invalid(Refusal::RopeFlag, key, "true or false"))
    }

    fn opt_str(&self, key: &str) -> Result<Option<&str>, FrontendError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.invalid(Refusal::RopeText, key, "a string"))
    }

    fn array(&self, key: &str, len: usize) -> Result<Vec<f32>, FrontendError> {
        let expected = format!("an array of {len} numbers");
        let items = self.get(key).and_then(Value::as_array).filter(|items| items.len() == len);
        let items = items.ok_or_else(|| self.invalid(Refusal::RopeFactors, key, &expected))?;
        items
            .iter()
            .map(|item| {
                item.as_f64()
                    .map(|n| n as f32)
                    .filter(|n| n.is_finite())
                    .ok_or_else(|| self.invalid(Refusal::RopeFactor, key, &expected))
            })
            .collect()
    }
}
