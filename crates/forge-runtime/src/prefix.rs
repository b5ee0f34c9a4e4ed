//! Beginnings of sequences kept in memory beyond the slots: a tree of blocks of tokens with the state of their positions.
//!
//! Sequences that begin alike share the blocks of their beginning, so that each token's rows are kept once. What windowed caches and
//! recurrent steps have come to is no state of a position: it is kept as *marks* at some positions, and a model that has such state can be
//! gone on with from a mark alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::batch::Slot;
use super::{LanguageModel, Result};

/// Tokens of a block.
pub const BLOCK: usize = 64;

/// Index of a block.
type Node = usize;

/// The blocks, and how many bytes they may take.
#[derive(Debug)]
pub struct Prefixes {
    blocks: BTreeMap<Node, Block>,
    /// Blocks that sequences begin with.
    roots: Vec<Node>,
    /// Blocks that none follows, those used longest ago first.
    leaves: BTreeSet<(u64, Node)>,
    /// Whether sequences can be gone on with from marks alone.
    marked: bool,
    bytes: usize,
    budget: usize,
    next: Node,
    clock: u64,
    /// What was given up, where somebody takes it.
    lost: Option<Vec<Kept>>,
}

/// State of a sequence's beginning, block by block.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The sequence.
    pub tokens: Vec<u32>,
    /// Its first position whose state is here, a multiple of [`BLOCK`] or its end.
    pub from: usize,
    /// State of [`BLOCK`] positions each, the last of what is left.
    pub blocks: Vec<Arc<Vec<u8>>>,
    /// What the positions before some have come to.
    pub marks: Vec<(usize, Arc<Vec<u8>>)>,
}

impl Kept {
    /// The positions of each block.
    pub fn ranges(tokens: usize, from: usize) -> impl Iterator<Item = Range<usize>> {
        (from..tokens).step_by(BLOCK).map(move |at| at..tokens.min(at + BLOCK))
    }

    /// Bytes of state.
    pub fn bytes(&self) -> usize {
        let marks: usize = self.marks.iter().map(|(_, mark)| mark.len()).sum();
        self.blocks.iter().map(|block| block.len()).sum::<usize>() + marks
    }
}

#[derive(Debug)]
struct Block {
    parent: Option<Node>,
    children: Vec<Node>,
    /// At most [`BLOCK`]; fewer only where no block follows.
    tokens: Vec<u32>,
    /// Their state.
    rows: Arc<Vec<u8>>,
    /// What all positions before have come to after so many of the tokens.
    marks: BTreeMap<usize, Arc<Vec<u8>>>,
    used: u64,
    /// Whether all of it was handed on to who takes what is lost.
    handed: bool,
}

impl Block {
    fn bytes(&self) -> usize {
        let marks: usize = self.marks.values().map(|mark| mark.len()).sum();
        4 * self.tokens.len() + self.rows.len() + marks
    }
}

/// State of a sequence's beginning that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Tokens in common with what is kept.
    pub shared: usize,
    /// Those of them that can be gone on from.
    pub positions: usize,
    /// The blocks that hold these, in order.
    path: Vec<Node>,
}

/// What was found of a sequence, apart from all else that is kept.
#[derive(Debug, Default)]
pub struct Brought {
    positions: usize,
    /// State of each block, and its positions.
    blocks: Vec<(Arc<Vec<u8>>, usize)>,
    mark: Option<Arc<Vec<u8>>>,
}

impl Brought {
    /// Writes it to a sequence.
    ///
    /// # Errors
    /// Those of the model; the sequence is good for nothing then.
    pub fn restore(&self, state: &mut dyn State) -> Result<()> {
        let mut at = 0;
        for (rows, of) in &self.blocks {
            let end = self.positions.min(at + of);
            state.write_rows(at..end, rows, *of)?;
            at = end;
        }
        self.mark.iter().try_for_each(|mark| state.write_mark(self.positions, mark))
    }
}

/// What can be read of a sequence's state, and written to it.
pub trait State {
    /// Appends the state of these positions.
    ///
    /// # Errors
    /// Those of the model.
    fn read_rows(&mut self, positions: Range<usize>, rows: &mut Vec<u8>) -> Result<()>;

    /// Writes state of these positions: the first of the `of` that `rows` is of.
    ///
    /// # Errors
    /// As above.
    fn write_rows(&mut self, positions: Range<usize>, rows: &[u8], of: usize) -> Result<()>;

    /// Writes what so many positions have come to.
    ///
    /// # Errors
    /// As above.
    fn write_mark(&mut self, positions: usize, mark: &[u8]) -> Result<()>;
}

/// The state of one slot of a model.
pub struct InSlot<'a, M: ?Sized> {
    /// The model.
    pub model: &'a mut M,
    /// The slot.
    pub slot: Slot,
}

impl<M: LanguageModel + ?Sized> State for InSlot<'_, M> {
    fn read_rows(&mut self, positions: Range<usize>, rows: &mut Vec<u8>) -> Result<()> {
        self.model.read_rows(self.slot, positions, rows)
    }

    fn write_rows(&mut self, positions: Range<usize>, rows: &[u8], of: usize) -> Result<()> {
        self.model.write_rows(self.slot, positions, rows, of)
    }

    fn write_mark(&mut self, positions: usize, mark: &[u8]) -> Result<()> {
        self.model.write_mark(self.slot, positions, mark)
    }
}

impl Prefixes {
    /// Room for so many bytes; sequences of a `marked` model can be gone on with from marks alone.
    pub fn new(budget: usize, marked: bool) -> Self {
        Self {
            blocks: BTreeMap::new(),
            roots: Vec::new(),
            leaves: BTreeSet::new(),
            marked,
            bytes: 0,
            budget,
            next: 0,
            clock: 0,
            lost: None,
        }
    }

    /// From now on what is given up is there for [`Prefixes::take_lost`].
    pub fn hand_on(&mut self) {
        self.lost.get_or_insert_default();
    }

    /// What was given up since it was last asked for, and not handed on before.
    pub fn take_lost(&mut self) -> Vec<Kept> {
        self.lost.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether anything is kept at all, here or by who takes what is lost.
    pub fn is_in_use(&self) -> bool {
        self.budget > 0 || self.lost.is_some()
    }

    /// Whether so many tokens take half of the room at most, as far as what is kept tells what one takes.
    pub fn is_roomy_for(&self, tokens: usize) -> bool {
        let each = self.blocks.values().next().map_or(0, |block| block.bytes().div_ceil(block.tokens.len().max(1)));
        self.budget > 0 && tokens.saturating_mul(each) <= self.budget / 2
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tokens that are kept, those of several sequences once.
    pub fn tokens(&self) -> usize {
        self.blocks.values().map(|block| block.tokens.len()).sum()
    }

    /// Gives up what was used longest ago until no more than so many bytes are taken, now and from now on.
    pub fn shrink(&mut self, budget: usize) {
        self.budget = budget;
        self.evict();
    }

    /// The most of a prompt that is kept, but for its last token.
    pub fn find(&self, prompt: &[u32]) -> Found {
        self.find_within(&prompt[..prompt.len().saturating_sub(1)])
    }

    /// Tokens of a sequence whose blocks are kept whole.
    pub fn whole_blocks(&self, tokens: &[u32]) -> usize {
        self.find_within(tokens).shared / BLOCK * BLOCK
    }

    fn find_within(&self, prompt: &[u32]) -> Found {
        let mut found = Found { shared: 0, positions: 0, path: Vec::new() };
        let mut path = Vec::new();
        let mut children = &self.roots;
        loop {
            let rest = &prompt[found.shared..];
            let common = |node: &Node| shared(&self.blocks[node].tokens, rest);
            let Some((node, count)) = children.iter().map(|node| (*node, common(node))).max_by_key(|(_, count)| *count)
            else {
                return found;
            };
            if count == 0 {
                return found;
            }
            let usable = if self.marked {
                // Blocks that part from each other within have their beginning in common, and marks of their own in it.
                let mark =
                    |other: &Node| Some((*self.blocks[other].marks.range(..=common(other)).next_back()?.0, *other));
                children.iter().filter_map(mark).max()
            } else {
                Some((count, node))
            };
            if let Some((at, holder)) = usable {
                found.positions = found.shared + at;
                found.path.clone_from(&path);
                found.path.push(holder);
            }
            path.push(node);
            let block = &self.blocks[&node];
            found.shared += count;
            if count < BLOCK {
                return found;
            }
            children = &block.children;
        }
    }

    /// Takes what was found out, so that it stays what it is whatever is given up for other sequences meanwhile.
    pub fn bring(&mut self, found: &Found) -> Brought {
        self.clock += 1;
        let mut brought = Brought { positions: found.positions, ..Brought::default() };
        let mut at = 0;
        for &node in &found.path {
            let Some(block) = self.blocks.get(&node) else { break };
            let count = block.tokens.len().min(found.positions - at);
            at += count;
            brought.blocks.push((block.rows.clone(), block.tokens.len()));
            if at == found.positions {
                brought.mark = block.marks.get(&count).cloned();
            }
            self.touch(node);
        }
        brought
    }

    /// Keeps the state of a sequence, as far as it is not kept already; with a mark, what it has come to at its end.
    ///
    /// # Errors
    /// Those of the model.
    pub fn keep(&mut self, tokens: &[u32], mark: Option<Vec<u8>>, state: &mut dyn State) -> Result<()> {
        if !self.is_in_use() {
            return Ok(());
        }
        self.clock += 1;
        let mark = mark.map(Arc::new);
        let (mut parent, mut at) = (None, 0);
        while at < tokens.len() {
            let block = &tokens[at..tokens.len().min(at + BLOCK)];
            let node = self.block(parent, at, block, state)?;
            self.touch(node);
            at += block.len();
            if at == tokens.len()
                && let (Some(kept), Some(mark)) = (self.blocks.get_mut(&node), &mark)
            {
                self.bytes += mark.len();
                kept.handed = false;
                let before = kept.marks.insert(block.len(), mark.clone());
                self.bytes -= before.map_or(0, |before| before.len());
            }
            parent = Some(node);
        }
        self.evict();
        Ok(())
    }

    /// The block of these tokens after another: the one that has them, one that is made longer by them, or a new one.
    fn block(&mut self, parent: Option<Node>, at: usize, tokens: &[u32], state: &mut dyn State) -> Result<Node> {
        let siblings = parent.map_or(&self.roots, |parent| &self.blocks[&parent].children);
        let common = |node: &Node| shared(&self.blocks[node].tokens, tokens);
        let whole = siblings.iter().copied().find(|node| common(node) == tokens.len());
        if let Some(node) = whole {
            return Ok(node);
        }
        let begun = siblings.iter().copied().find(|node| common(node) == self.blocks[node].tokens.len());
        // What they have come to where they are alike outlives whichever is given up first.
        let alike = siblings.iter().flat_map(|node| self.blocks[node].marks.range(..=common(node)));
        let marks: BTreeMap<usize, Arc<Vec<u8>>> = alike.map(|(&at, mark)| (at, mark.clone())).collect();
        let mut rows = Vec::new();
        state.read_rows(at..at + tokens.len(), &mut rows)?;
        let (tokens, used) = (tokens.to_vec(), self.clock);
        if let Some(node) = begun
            && let Some(block) = self.blocks.get_mut(&node)
        {
            self.bytes -= block.bytes();
            (block.tokens, block.rows, block.marks, block.handed) = (tokens, Arc::new(rows), marks, false);
            self.bytes += block.bytes();
            return Ok(node);
        }
        let rows = Arc::new(rows);
        let block = Block { parent, children: Vec::new(), tokens, rows, marks, used, handed: false };
        let node = self.next;
        self.next += 1;
        self.bytes += block.bytes();
        self.blocks.insert(node, block);
        self.leaves.insert((used, node));
        match parent.and_then(|parent| Some((parent, self.blocks.get_mut(&parent)?))) {
            Some((parent, block)) => {
                block.children.push(node);
                self.leaves.remove(&(block.used, parent));
            }
            None => self.roots.push(node),
        }
        Ok(node)
    }

    /// The state of a sequence as far as it is kept.
    pub fn kept(&self, tokens: &[u32]) -> Option<Kept> {
        let (mut children, mut at, mut last) = (&self.roots, 0, None);
        loop {
            let rest = &tokens[at..];
            let whole = |node: &&Node| {
                let (own, count) = (&self.blocks[*node].tokens, shared(&self.blocks[*node].tokens, rest));
                count > 0 && (count == own.len() || count == rest.len())
            };
            let longest = |node: &&Node| shared(&self.blocks[*node].tokens, rest);
            let Some(node) = children.iter().filter(whole).max_by_key(longest) else { break };
            (children, last) = (&self.blocks[node].children, Some(*node));
            at = tokens.len().min(at + BLOCK);
        }
        last.map(|node| self.kept_at(node))
    }

    /// The state of all sequences.
    pub fn all(&self) -> Vec<Kept> {
        self.leaves.iter().map(|&(_, node)| self.kept_at(node)).collect()
    }

    /// The state of a sequence that ends with a block.
    fn kept_at(&self, node: Node) -> Kept {
        let path: Vec<&Block> = self.up_from(node).filter_map(|node| self.blocks.get(&node)).collect();
        let mut kept = Kept::default();
        for block in path.into_iter().rev() {
            let at = kept.tokens.len();
            kept.marks.extend(block.marks.iter().map(|(&mark, bytes)| (at + mark, bytes.clone())));
            kept.tokens.extend_from_slice(&block.tokens);
            kept.blocks.push(block.rows.clone());
        }
        kept
    }

    /// A block and those before it.
    fn up_from(&self, node: Node) -> impl Iterator<Item = Node> {
        std::iter::successors(Some(node), |node| self.blocks.get(node)?.parent)
    }

    /// Hands on what ends with a block, unless it was before.
    fn hand(&mut self, node: Node) {
        if self.lost.is_none() || self.blocks.get(&node).is_none_or(|block| block.handed) {
            return;
        }
        let kept = self.kept_at(node);
        self.lost.get_or_insert_default().push(kept);
        let path: Vec<Node> = self.up_from(node).collect();
        for node in path {
            self.blocks.get_mut(&node).into_iter().for_each(|block| block.handed = true);
        }
    }

    /// A block is used now.
    fn touch(&mut self, node: Node) {
        let Some(block) = self.blocks.get_mut(&node) else { return };
        let before = std::mem::replace(&mut block.used, self.clock);
        if self.leaves.remove(&(before, node)) {
            self.leaves.insert((self.clock, node));
        }
    }

    /// Gives up leaves until the budget is kept.
    fn evict(&mut self) {
        while self.bytes > self.budget
            && let Some((_, node)) = self.leaves.pop_first()
        {
            self.hand(node);
            let Some(block) = self.blocks.remove(&node) else { continue };
            self.bytes -= block.bytes();
            match block.parent.and_then(|parent| Some((parent, self.blocks.get_mut(&parent)?))) {
                Some((parent, above)) => {
                    above.children.retain(|child| *child != node);
                    if above.children.is_empty() {
                        self.leaves.insert((above.used, parent));
                    }
                }
                None => self.roots.retain(|root| *root != node),
            }
        }
    }
}

/// Tokens at the beginnings of both.
pub(super) fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
