//! Plain kernels of a program that holds three sequences, whose rows are of any of them, and ways to mix them up.

use forge_runtime::verify::*;

use crate::families::*;

/// A kernel whose rows may be of any of the program's sequences.
pub const fn mixed(
    kernel: usize,
    operation: Operation<'static>,
    arguments: &'static [Argument<'static>],
) -> KernelCheck {
    KernelCheck { mixed: true, ..check(kernel, &[1, 2, 8], BY_ROW, operation, arguments) }
}

pub static SLOTS: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/slots.metal"),
    slots: 3,
    specs: &[spec("append"), spec("attend"), spec("residual_sums"), spec("best")],
    checks: &[
        mixed(
            0,
            Operation::RopeAppend(RopeAppend {
                keys_as_values: false,
                gates: Gates::None,
                heads: 1,
                kv_heads: 1,
                head_dim: 8,
                norms: [None, None, None],
                norms_last: false,
                inv_freq: &[],
                interleaved: false,
                magnitude: 1.0,
                query_scale: None,
                cache: CacheType::F32,
                wrap: None,
            }),
            &[
                Argument::read(Role::Qkv, Data::Words(24)),
                Argument::write(Role::Q, Data::Words(8)),
                Argument::write(Role::Keys, Data::Cache(8)),
                Argument::write(Role::Values, Data::Cache(8)),
                STEP,
            ],
        ),
        mixed(
            1,
            Operation::Attention(Attention {
                heads: 1,
                kv_heads: 1,
                head_dim: 8,
                value_dim: 8,
                scale: 0.25,
                softcap: None,
                window: Some(24),
                cache: CacheType::F32,
                wrap: Some(40),
                half_operands: false,
                split: None,
            }),
            &[
                Argument::read(Role::Q, Data::Words(8)),
                Argument::read(Role::Keys, Data::Cache(8)),
                Argument::read(Role::Values, Data::Cache(8)),
                Argument::write(Role::Y, Data::Words(8)),
                STEP,
            ],
        ),
        mixed(
            2,
            project(Some(1e-5), false, RESIDUAL),
            &[
                WEIGHTS,
                INPUT,
                Argument::read(Role::InputSums, Data::Words(3)),
                X8,
                GAMMA,
                Argument::write(Role::Scaled, Data::Words(8)),
                Argument::write(Role::Sums, Data::Words(1)),
            ],
        ),
        mixed(
            3,
            Operation::SampleBest(VOCABULARY),
            &[
                LOGITS,
                Argument::read(Role::Seen, Data::Slots(4)),
                Argument::read(Role::LogitBias, Data::Slots(100)),
                Argument::read(Role::Times, Data::Slots(100)),
                Argument::read(Role::Allowed, Data::Slots(4)),
                Argument::write(Role::Best, Data::Slots(4)),
                Argument::write(Role::Count, Data::Slots(1)),
                STEP,
            ],
        ),
    ],
    faults: &[
        // Every row of the first slot, or at the first row's position.
        ("values[(step[row].slot", "values[(0 * step[row].slot", "append"),
        ("step[row].position) * 8 + i] = qkv[row * 24 + 8", "step[0].position) * 8 + i] = qkv[row * 24 + 8", "append"),
        ("const uint start = step[row].slot", "const uint start = step[0].slot", "attend"),
        ("const uint position = step[row].position", "const uint position = step[0].position", "attend"),
        // One row's norm for all, and sums of all rows in one.
        ("input_sums[row * 3", "input_sums[0 * 3", "residual_sums"),
        ("sums[row] = square", "sums[row] = row == 0 ? square : sums[0]", "residual_sums"),
        ("count[step[row].slot]", "count[0]", "best"),
        ("best + step[row].slot * 4", "best + row * 4 % 12", "best"),
    ],
};
