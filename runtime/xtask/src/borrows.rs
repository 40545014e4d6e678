//! Gives borrowed handles back in time.
//!
//! Tools that wrap an interpreter (componentize-qjs for one) describe a world by `wit-dylib`, whose glue drops the handles
//! that an exported function borrowed in `cabi_post_…`, after its results were taken. The component model wants them back when
//! the function returns, and wasmtime refuses the call otherwise: "borrow handles still remain at the end of the call".
//! So each exported function that borrows a batch, always as its first parameter, gets a wrapper that drops the handle as the
//! function returns, and the glue's own drop becomes a function that does nothing.

use anyhow::{Result, anyhow};
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent, utils};
use wasm_encoder::{CodeSection, Component, ExportSection, Function, FunctionSection, Instruction, Module, ModuleSection};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

/// The import through which glue drops a batch.
const DROP: (&str, &str) = ("plumb:align/data@", "[resource-drop]batch");
/// Exported functions that borrow a batch.
const BORROWERS: [&str; 5] = ["score", "shape", "select", "begin", "resume"];

/// The same component, with glue that drops the batch as its functions return.
pub fn give_back(component: &[u8]) -> Result<Vec<u8>> {
    let mut mended = Component::new();
    Mender
        .parse_component(&mut mended, Parser::new(0), component)
        .map_err(|error| anyhow!("cannot rewrite the component: {error}"))?;
    Ok(mended.finish())
}

/// Copies a component and mends the glue modules in it.
struct Mender;

impl Reencode for Mender {
    type Error = anyhow::Error;
}

impl ReencodeComponent for Mender {
    fn parse_component_submodule(
        &mut self,
        component: &mut Component,
        parser: Parser,
        module: &[u8],
    ) -> Result<(), Error<Self::Error>> {
        self.push_depth();
        let mut mended = Module::new();
        match Glue::of(module).map_err(Error::UserError)? {
            Some(mut glue) => glue.parse_core_module(&mut mended, parser, module)?,
            None => utils::parse_core_module(self, &mut mended, parser, module)?,
        }
        component.section(&ModuleSection(&mended));
        self.pop_depth();
        Ok(())
    }
}

/// What a glue module looks like before it is mended.
struct Glue {
    /// The imported function that drops a batch; its type fits the one that does nothing, too.
    drop: u32,
    drop_type: u32,
    /// Functions there are; the new ones follow.
    functions: u32,
    borrowers: Vec<Borrower>,
}

/// An exported function that borrows a batch.
struct Borrower {
    export: String,
    function: u32,
    ty: u32,
    params: u32,
}

impl Glue {
    /// None for a module that drops no batch.
    fn of(module: &[u8]) -> Result<Option<Self>> {
        let (mut types, mut functions, mut drop, mut exports) = (Vec::new(), Vec::new(), None, Vec::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        types.push(ty?.params().len() as u32);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        if let TypeRef::Func(ty) = import.ty {
                            if import.module.starts_with(DROP.0) && import.name == DROP.1 {
                                drop = Some((functions.len() as u32, ty));
                            }
                            functions.push(ty);
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        functions.push(ty?);
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let name = export.name.strip_prefix("plumb:align/").and_then(|name| name.rsplit_once('#'));
                        if export.kind == ExternalKind::Func && name.is_some_and(|(_, name)| BORROWERS.contains(&name)) {
                            exports.push((export.name.to_owned(), export.index));
                        }
                    }
                }
                _ => {}
            }
        }
        let Some((drop, drop_type)) = drop.filter(|_| !exports.is_empty()) else { return Ok(None) };
        let borrower = |(export, function): (String, u32)| {
            let ty = functions[function as usize];
            Borrower { export, function, ty, params: types[ty as usize] }
        };
        let borrowers = exports.into_iter().map(borrower).collect();
        Ok(Some(Glue { drop, drop_type, functions: functions.len() as u32, borrowers }))
    }

    /// Index of the function that does nothing, in place of the drop.
    fn nothing(&self) -> u32 {
        self.functions
    }
}

impl Reencode for Glue {
    type Error = anyhow::Error;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Self::Error>> {
        Ok(if function == self.drop { self.nothing() } else { function })
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), Error<Self::Error>> {
        utils::parse_function_section(self, functions, section)?;
        functions.function(self.drop_type);
        self.borrowers.iter().for_each(|borrower| {
            functions.function(borrower.ty);
        });
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), Error<Self::Error>> {
        utils::parse_code_section(self, code, section)?;
        let mut nothing = Function::new([]);
        nothing.instruction(&Instruction::End);
        code.function(&nothing);
        for borrower in &self.borrowers {
            let mut wrapper = Function::new([]);
            (0..borrower.params).for_each(|param| {
                wrapper.instruction(&Instruction::LocalGet(param));
            });
            wrapper.instruction(&Instruction::Call(borrower.function));
            wrapper.instruction(&Instruction::LocalGet(0));
            wrapper.instruction(&Instruction::Call(self.drop));
            wrapper.instruction(&Instruction::End);
            code.function(&wrapper);
        }
        Ok(())
    }

    fn parse_export(&mut self, exports: &mut ExportSection, export: wasmparser::Export<'_>) -> Result<(), Error<Self::Error>> {
        match self.borrowers.iter().position(|borrower| borrower.export == export.name) {
            Some(place) => {
                exports.export(export.name, wasm_encoder::ExportKind::Func, self.nothing() + 1 + place as u32);
                Ok(())
            }
            None => utils::parse_export(self, exports, export),
        }
    }
}
