//! Regions that came from a file (see [`crate::store`]): their code is mapped into the arena, their tables stay in the file until somebody asks
//! for one of them. Bookkeeping only, as the parent's.

use super::region::{Region, RegionId};
use crate::store::image::Image;
use std::ops::Range;

/// Ids of such regions: this bit, 7 bits for the image, 24 for the region in it.
pub const ADOPTED: RegionId = 1 << 31;
const IN_IMAGE: u32 = 24;
const MOST_REGIONS: u32 = 1 << IN_IMAGE;
const MOST_IMAGES: usize = 127;

/// An image in use.
#[derive(Debug)]
pub struct Adopted {
    pub image: Image,
    /// Host addresses of its code.
    pub code: Range<u64>,
    /// The id of its first region.
    pub first: RegionId,
    /// Tables that were asked for.
    made: Vec<Option<Box<Region>>>,
}

/// All images in use.
#[derive(Debug, Default)]
pub struct Images(pub Vec<Adopted>);

impl Images {
    /// Whether another one can be told apart.
    pub fn have_room(&self, image: &Image) -> bool {
        self.0.len() < MOST_IMAGES && image.count() < MOST_REGIONS
    }

    /// Takes `image`, whose code is at host address `code`.
    pub fn add(&mut self, image: Image, code: u64) {
        let first = ADOPTED | (self.0.len() as u32) << IN_IMAGE;
        let code = code..code + image.code().len() as u64;
        let made = (0..image.count()).map(|_| None).collect();
        self.0.push(Adopted { image, code, first, made });
    }

    /// The region host address `pc` is in.
    pub fn region_at(&self, pc: u64) -> Option<RegionId> {
        let a = self.0.iter().find(|a| a.code.contains(&pc))?;
        Some(a.first + a.image.region_at((pc - a.code.start) as u32)?)
    }

    /// The entry for `guest`: its host address and region, if that is alive.
    pub fn entry(&self, guest: u64) -> Option<(u64, RegionId)> {
        // One that was unmapped may have been where another is.
        self.0.iter().find_map(|a| {
            let (host, region) = a.image.entry(guest)?;
            let dead = a.made.get(region as usize)?.as_ref().is_some_and(|r| !r.alive);
            (!dead).then_some((a.code.start + u64::from(host), a.first + region))
        })
    }

    /// The tables of region `id`, which one of these functions gave.
    pub fn region(&mut self, id: RegionId) -> &mut Region {
        let a = &mut self.0[((id & !ADOPTED) >> IN_IMAGE) as usize];
        let i = id & (MOST_REGIONS - 1);
        a.made[i as usize].get_or_insert_with(|| Box::new(a.image.region(i, a.code.start, a.first)))
    }

    /// The guest address of its own entry.
    pub fn start(&self, id: RegionId) -> Option<u64> {
        self.0[((id & !ADOPTED) >> IN_IMAGE) as usize].image.start(id & (MOST_REGIONS - 1))
    }

    /// Those tables, if they were asked for before.
    pub fn peek(&self, id: RegionId) -> Option<&Region> {
        self.0[((id & !ADOPTED) >> IN_IMAGE) as usize].made[(id & (MOST_REGIONS - 1)) as usize].as_deref()
    }

    /// The regions that are alive and were made from a byte of `range`.
    pub fn made_from<'a>(&'a self, range: &'a Range<u64>) -> impl Iterator<Item = RegionId> + 'a {
        let touched = |a: &&Adopted| a.image.guest().start < range.end && range.start < a.image.guest().end;
        self.0.iter().filter(touched).flat_map(move |a| {
            let alive = |i: &u32| a.made[*i as usize].as_ref().is_none_or(|r| r.alive);
            (0..a.image.count()).filter(alive).filter(|i| a.image.depends_on(*i, range)).map(|i| a.first + i)
        })
    }

    /// Regions whose tables were asked for.
    pub fn made(&mut self) -> impl Iterator<Item = &mut Region> {
        self.0.iter_mut().flat_map(|a| a.made.iter_mut().flatten().map(|r| &mut **r))
    }
}
