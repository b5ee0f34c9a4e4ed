//! The groups of tiles that a row is cut into.

use forge_spec::{Scheme, TILE};

/// Tiles whose codes lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// First tile.
    pub tile: usize,
    /// Number of tiles.
    pub count: usize,
    /// Columns of each tile: 256, or less in the partial one.
    pub cols: usize,
}

/// The groups of tiles of a row.
pub(super) fn groups(scheme: &Scheme, cols: usize) -> impl Iterator<Item = Group> + use<> {
    let (tiles, whole) = (scheme.tiles, cols / TILE);
    let mut tile = 0;
    std::iter::from_fn(move || {
        let group = match whole.saturating_sub(tile) {
            0 if tile * TILE < cols => Group { tile, count: 1, cols: cols - tile * TILE },
            0 => return None,
            left => {
                let count = if left >= tiles { tiles } else { 1 << left.ilog2() };
                Group { tile, count, cols: TILE }
            }
        };
        tile += group.count;
        // The partial tile is the last group.
        if group.cols < TILE {
            tile = usize::MAX / TILE;
        }
        Some(group)
    })
    .fuse()
}
