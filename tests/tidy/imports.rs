//! Which modules of the crate use which: every path in the code of `src/`, followed to the module that defines the
//! item.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The path of a module from the crate's root, for example `["gateway", "plan"]`. The root's is empty.
pub type Module = Vec<String>;

/// The code of a module names an item of another one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub from: Module,
    pub to: Module,
    pub file: PathBuf,
    /// The path as it is written.
    pub path: String,
    /// Whether only tests need it.
    pub test: bool,
}

/// Reads these files, which are below `src`.
pub fn read(src: &Path, files: &[PathBuf]) -> Vec<Use> {
    let mut names = Names::default();
    let mut paths = Vec::new();
    for file in files {
        let mut reader = Reader::new(src, file, &mut names, &mut paths);
        let text = fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        reader.visit_file(&parsed);
    }
    let found = paths.into_iter().filter_map(|path| {
        let to = names.resolve(&path.segments, &path.from, 8).filter(|to| !to.is_empty() && *to != path.from)?;
        let test = path.test || names.tests.iter().any(|test| path.from.starts_with(test));
        Some(Use { from: path.from, to, file: path.file, path: path.segments.join("::"), test })
    });
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A path in the code.
struct Named {
    from: Module,
    segments: Vec<String>,
    file: PathBuf,
    test: bool,
}

/// The names that paths may begin with.
#[derive(Default)]
struct Names {
    modules: BTreeSet<Module>,
    /// Modules that exist only in tests.
    tests: BTreeSet<Module>,
    /// What a module imports: its name there, and the path that it stands for.
    imported: BTreeMap<(Module, String), Vec<String>>,
}

impl Names {
    /// The module that defines what a path names. `None` if that is another crate. An item that a module imports is
    /// followed to the module that it comes from, in at most `depth` steps.
    fn resolve(&self, segments: &[String], from: &Module, depth: usize) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = segments;
        let own = |first: &String| {
            self.modules.contains(&child(from, first)) || self.imported.contains_key(&(from.clone(), first.clone()))
        };
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" | "roomcast" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()?),
                _ if rest.len() == segments.len() && !own(first) => return None,
                _ => break,
            }
            rest = others;
        }
        while let Some((first, others)) = rest.split_first() {
            let inner = child(&at, first);
            if !self.modules.contains(&inner) {
                let imported = self.imported.get(&(at.clone(), first.clone())).filter(|_| depth > 0);
                let Some(path) = imported else { break };
                return self.resolve(&[path, others].concat(), &at, depth - 1);
            }
            (at, rest) = (inner, others);
        }
        Some(at)
    }
}

fn child(module: &Module, name: &str) -> Module {
    let mut child = module.clone();
    child.push(name.to_owned());
    child
}

/// Collects what a file contains.
struct Reader<'a> {
    file: &'a Path,
    /// The module that is being read: the file's, or one inside it.
    module: Module,
    in_test: bool,
    names: &'a mut Names,
    paths: &'a mut Vec<Named>,
}

impl<'a> Reader<'a> {
    fn new(src: &Path, file: &'a Path, names: &'a mut Names, paths: &'a mut Vec<Named>) -> Self {
        let path = file.strip_prefix(src).unwrap().with_extension("");
        let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module == ["lib"] {
            module.clear();
        }
        names.modules.insert(module.clone());
        Self { file, module, in_test: false, names, paths }
    }

    fn name(&mut self, segments: Vec<String>) {
        let (from, file) = (self.module.clone(), self.file.to_owned());
        self.paths.push(Named { from, segments, file, test: self.in_test });
    }

    fn import(&mut self, name: String, path: Vec<String>) {
        self.name(path.clone());
        self.names.imported.insert((self.module.clone(), name), path);
    }

    fn tree(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let with = |ident: &syn::Ident| match ident {
            own if own == "self" => prefix.to_vec(),
            _ => [prefix, &[ident.to_string()]].concat(),
        };
        match tree {
            syn::UseTree::Path(path) => {
                let path_prefix = [prefix, &[path.ident.to_string()]].concat();
                self.tree(&path.tree, &path_prefix);
            }
            syn::UseTree::Name(name) => {
                let path = with(&name.ident);
                self.import(path.last().cloned().unwrap_or_default(), path);
            }
            syn::UseTree::Rename(rename) => self.import(rename.rename.to_string(), with(&rename.ident)),
            syn::UseTree::Glob(_) => self.name(prefix.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, prefix)),
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let before = self.in_test;
        self.in_test |= only_in_tests(attributes(item));
        visit::visit_item(self, item);
        self.in_test = before;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let inner = child(&self.module, &item.ident.to_string());
        if self.in_test {
            self.names.tests.insert(inner.clone());
        }
        if let Some((_, items)) = &item.content {
            self.names.modules.insert(inner.clone());
            let outer = std::mem::replace(&mut self.module, inner);
            items.iter().for_each(|item| self.visit_item(item));
            self.module = outer;
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.name(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    /// The arguments of a macro are no syntax tree, so its paths are found as text.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let text = unquoted(&called.tokens.to_string()).replace(" :: ", "::");
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let mut rest = text.as_str();
        while let Some(at) = rest.find("::") {
            let before = rest[..at].rsplit(|c| !word(c)).next().unwrap_or("");
            let whole = &rest[at - before.len()..];
            let path = whole.split(|c| !word(c) && c != ':').next().unwrap_or("");
            if !before.is_empty() {
                self.name(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
            }
            rest = &whole[path.len().max(before.len() + 2)..];
        }
        visit::visit_macro(self, called);
    }
}

/// Code without its strings.
fn unquoted(code: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    code.chars()
        .filter(|&c| {
            let quote = c == '"' && !escaped;
            escaped = inside && c == '\\' && !escaped;
            inside ^= quote;
            !inside && !quote
        })
        .collect()
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn only_in_tests(attributes: &[syn::Attribute]) -> bool {
    let is_test = |list: &syn::MetaList| list.tokens.to_string() == "test";
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test))
}

/// The groups of modules beside each other, below one parent, that use each other in a circle. Uses by tests, and uses
/// of a parent and its children among each other, do not count.
pub fn circles(uses: &[Use]) -> Vec<Vec<String>> {
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for found in uses.iter().filter(|found| !found.test) {
        let common = found.from.iter().zip(&found.to).take_while(|(one, other)| one == other).count();
        // One of them is in the other.
        if common == found.from.len() || common == found.to.len() {
            continue;
        }
        let (from, to) = (found.from[..=common].to_vec(), found.to[..=common].to_vec());
        edges.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = edges.keys().map(|from| (from, reach(from, &edges))).collect();
    let circle = |module: &Module| -> Vec<String> {
        let back = |to: &&&Module| reached.get(**to).is_some_and(|reached| reached.contains(module));
        reached[module].iter().filter(back).map(|to| to.join("::")).collect()
    };
    let found: BTreeSet<Vec<String>> = edges.keys().map(circle).filter(|circle| circle.len() > 1).collect();
    found.into_iter().collect()
}

fn reach<'a>(from: &'a Module, edges: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for to in edges.get(module).into_iter().flatten() {
            if reached.insert(to) {
                next.push(to);
            }
        }
    }
    reached
}

/// The uses that a circle consists of.
pub fn inside(circle: &[String], uses: &[Use]) -> Vec<String> {
    let part = |module: &Module| {
        let is_in = |part: &&String| module.join("::") == **part || module.join("::").starts_with(&format!("{part}::"));
        circle.iter().find(is_in)
    };
    let all = uses.iter().filter(|found| !found.test).filter_map(|found| {
        let (from, to) = (part(&found.from)?, part(&found.to)?);
        (from != to).then(|| format!("{from} uses {to}: {}", found.path))
    });
    let mut all: Vec<String> = all.collect();
    all.insert(0, format!("circle of {}:", circle.join(", ")));
    all
}
