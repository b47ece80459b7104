package scripts

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of this module; imports that start with it are edges.
const Module = "skein"

// Tree is the syntax of all packages of a module.
type Tree struct {
	// Fset gives positions, with paths relative to the module's root.
	Fset *token.FileSet
	// Packages are sorted by path.
	Packages []*Package
	// TopLevel are the names in the root folder; folders end in "/".
	TopLevel []string
}

// Package is the files of one folder, tests included.
type Package struct {
	// Path is relative to the module's root: "mesh/link".
	Path string
	// Name is the name of its package clause, that of the tests if there is no other.
	Name string
	// HasDesign tells whether the folder holds a DESIGN.md.
	HasDesign bool
	Files     []*File
}

// File is one parsed source file.
type File struct {
	Syntax *ast.File
	// Test is true for _test.go files, Generated for files that say so.
	Test, Generated bool
}

// Finding is one broken rule.
type Finding struct {
	// Pos is where; a finding about a folder has its path and line 0.
	Pos token.Position
	// Text says what is wrong and what to do.
	Text string
}

// String is "file:line: text", which editors can jump to.
func (f Finding) String() string {
	if f.Pos.Line == 0 {
		return fmt.Sprintf("%s: %s", f.Pos.Filename, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s", f.Pos.Filename, f.Pos.Line, f.Text)
}

// Load parses every package below the root of a module. Folders that the go
// command ignores, folders of other modules and what is not ours
// (node_modules) are left out.
func Load(root fs.FS) (*Tree, error) {
	tree := &Tree{Fset: token.NewFileSet()}
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() {
			name += "/"
		}
		tree.TopLevel = append(tree.TopLevel, name)
	}
	err = fs.WalkDir(root, ".", func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if dir != "." && (ignored(entry.Name()) || exists(root, path.Join(dir, "go.mod"))) {
			return fs.SkipDir
		}
		return tree.addFolder(root, dir)
	})
	return tree, err
}

func ignored(folder string) bool {
	return strings.HasPrefix(folder, ".") || strings.HasPrefix(folder, "_") ||
		slices.Contains([]string{"testdata", "vendor", "node_modules", "bin"}, folder)
}

func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}

func (t *Tree) addFolder(root fs.FS, dir string) error {
	entries, err := fs.ReadDir(root, dir)
	if err != nil {
		return err
	}
	p := &Package{Path: dir, HasDesign: exists(root, path.Join(dir, "DESIGN.md"))}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
			continue
		}
		filename := path.Join(dir, name)
		source, err := fs.ReadFile(root, filename)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(t.Fset, filename, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		file := &File{Syntax: syntax, Test: strings.HasSuffix(name, "_test.go"), Generated: ast.IsGenerated(syntax)}
		if !file.Test || p.Name == "" {
			p.Name = strings.TrimSuffix(syntax.Name.Name, "_test")
		}
		p.Files = append(p.Files, file)
	}
	if len(p.Files) > 0 {
		t.Packages = append(t.Packages, p)
	}
	return nil
}

// at makes a finding about a piece of syntax.
func (t *Tree) at(node ast.Node, format string, args ...any) Finding {
	return Finding{t.Fset.Position(node.Pos()), fmt.Sprintf(format, args...)}
}

// ours are the files that people wrote and that are no tests.
func (p *Package) ours() []*File {
	return slices.DeleteFunc(slices.Clone(p.Files), func(f *File) bool { return f.Test || f.Generated })
}

// importPath is what an import spec imports.
func importPath(spec *ast.ImportSpec) string {
	text, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value // the parser has accepted it; show it as it is
	}
	return text
}

// importedAs maps the names under which a file knows packages to their paths.
func importedAs(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range f.Imports {
		of := importPath(spec)
		name := path.Base(of)
		if isMajorVersion(name) {
			name = path.Base(path.Dir(of))
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = of
	}
	return names
}

func isMajorVersion(element string) bool {
	number, ok := strings.CutPrefix(element, "v")
	_, err := strconv.Atoi(number)
	return ok && err == nil
}
