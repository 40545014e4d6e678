//! How many instances a component becomes. Components nest: thirty that each instantiate the one before twice are a kilobyte, and a
//! billion instances, all of which the compiler lays out one by one. So they are counted first, which takes no longer than reading.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef, Instance, Payload,
};

use crate::limits;

/// Counts along with a parser that reads a component and all within it.
#[derive(Default)]
pub struct Expansion(Vec<Level>);

/// A component or module whose end was not read yet.
#[derive(Default)]
struct Level {
    /// Instances that each component of its index space becomes; [`UNKNOWN`] for those that come from elsewhere.
    components: Vec<u64>,
    /// Instances that this one becomes.
    instances: u64,
}

/// No toolchain instantiates a component that it is handed; counted as too many.
const UNKNOWN: u64 = u64::MAX;

impl Expansion {
    /// Takes the next payload.
    ///
    /// # Errors
    /// The parser's, for a section that it cannot read; None inside once there are more than [`limits::INSTANCES`].
    pub fn read(&mut self, payload: &Payload) -> Result<Option<()>, wasmparser::BinaryReaderError> {
        match payload {
            Payload::Version { encoding, .. } => {
                let instances = u64::from(*encoding == wasmparser::Encoding::Component);
                self.0.push(Level { instances, ..Level::default() });
            }
            Payload::End(_) => {
                let ended = self.0.pop().unwrap_or_default();
                // Modules end here too, and are in an index space of their own.
                if let (Some(parent), 1..) = (self.0.last_mut(), ended.instances) {
                    parent.components.push(ended.instances);
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    if matches!(import?.ty, ComponentTypeRef::Component(_)) {
                        self.define(UNKNOWN);
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    match alias? {
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            self.define(self.component(count as usize, index));
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => self.define(UNKNOWN),
                        _ => {}
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Component {
                        self.define(self.component(0, export.index));
                    }
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if matches!(instance?, Instance::Instantiate { .. }) {
                        self.add(1);
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        self.add(self.component(0, component_index));
                    }
                }
            }
            _ => {}
        }
        let most = self.0.last().map_or(0, |level| level.instances);
        // A component that is defined and never instantiated may be anything, but for the outermost.
        Ok((self.0.len() > 1 || most <= limits::INSTANCES).then_some(()))
    }

    /// Instances of component `index` of the level `count` levels out.
    fn component(&self, count: usize, index: u32) -> u64 {
        let level = self.0.len().checked_sub(count + 1).and_then(|at| self.0.get(at));
        level.and_then(|level| level.components.get(index as usize)).copied().unwrap_or(UNKNOWN)
    }

    fn define(&mut self, instances: u64) {
        if let Some(level) = self.0.last_mut() {
            level.components.push(instances);
        }
    }

    fn add(&mut self, instances: u64) {
        if let Some(level) = self.0.last_mut() {
            level.instances = level.instances.saturating_add(instances);
        }
    }
}
