package scripts

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Limits of the ratchet. They only ever go down.
const (
	MaxFunctionLines     = 70
	MaxTestFunctionLines = 120
	MaxStructFields      = 15
	MaxInterfaceMethods  = 5
)

// CheckSizes finds functions, structs and interfaces over the limits. Generated
// files are free; tests are free of the limits on types.
func CheckSizes(tree *Tree) []Finding {
	var findings []Finding
	for _, p := range tree.Packages {
		for _, file := range p.Files {
			if file.Generated {
				continue
			}
			ast.Inspect(file.Syntax, func(node ast.Node) bool {
				if finding, ok := tree.oversize(file, node); ok {
					findings = append(findings, finding)
				}
				return true
			})
		}
	}
	return findings
}

func (t *Tree) oversize(file *File, node ast.Node) (Finding, bool) {
	switch n := node.(type) {
	case *ast.FuncDecl:
		limit := MaxFunctionLines
		if file.Test {
			limit = MaxTestFunctionLines
		}
		lines := t.Fset.Position(n.End()).Line - t.Fset.Position(n.Pos()).Line + 1
		if lines > limit {
			return t.at(n, "function %s has %d lines, at most %d are allowed; give its parts names", n.Name.Name, lines, limit), true
		}
	case *ast.TypeSpec:
		if file.Test {
			return Finding{}, false
		}
		if s, ok := n.Type.(*ast.StructType); ok && members(s.Fields) > MaxStructFields {
			return t.at(n, "struct %s has %d fields, at most %d are allowed; group those that change together", n.Name.Name, members(s.Fields), MaxStructFields), true
		}
		if i, ok := n.Type.(*ast.InterfaceType); ok && members(i.Methods) > MaxInterfaceMethods {
			return t.at(n, "interface %s has %d methods, at most %d are allowed; declare what each consumer needs", n.Name.Name, members(i.Methods), MaxInterfaceMethods), true
		}
	}
	return Finding{}, false
}

// members counts names; an embedded type is one.
func members(list *ast.FieldList) int {
	count := 0
	for _, field := range list.List {
		count += max(1, len(field.Names))
	}
	return count
}

// CheckComments finds work that was put off without a name, in comments of all
// files. The form that passes is TODO(who): why it waits.
func CheckComments(tree *Tree) []Finding {
	// The words are taken apart, so that this file does not find itself.
	put := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	owned := regexp.MustCompile(`\bTO` + `DO\([\w.@-]+\): \S`)
	var findings []Finding
	for _, p := range tree.Packages {
		for _, file := range p.Files {
			for _, group := range file.Syntax.Comments {
				for _, comment := range group.List {
					if word := put.FindString(comment.Text); word != "" && !file.Generated && !owned.MatchString(comment.Text) {
						findings = append(findings, tree.at(comment, "%s without an owner and a reason; do it now, or write TO"+"DO(name): why it waits", word))
					}
				}
			}
		}
	}
	return findings
}

// Exception frees a folder from a rule, for a reason.
type Exception struct{ Path, Why string }

// CheckPackages finds packages without a package comment or a DESIGN.md, drawers
// named after nothing, and exceptions that free nobody.
func CheckPackages(tree *Tree, noDesign []Exception) []Finding {
	used := make([]bool, len(noDesign))
	var findings []Finding
	for _, p := range tree.Packages {
		here := token.Position{Filename: p.Path}
		if len(p.ours()) > 0 && !hasPackageComment(p) {
			findings = append(findings, Finding{here, "has no package comment; say what the package is for, its order, its limits and who may import it"})
		}
		if !p.HasDesign && !except(noDesign, used, p.Path) {
			findings = append(findings, Finding{here, "has no DESIGN.md; write its purpose, non-goals, decisions with reasons, and limits"})
		}
		for part := range strings.SplitSeq(p.Path, "/") {
			if drawer(part) || drawer(p.Name) {
				findings = append(findings, Finding{here, "is a drawer: name the package after what it does for its importers"})
				break
			}
		}
	}
	for i, exception := range noDesign {
		if !used[i] {
			findings = append(findings, Finding{token.Position{Filename: "scripts/table.go"},
				fmt.Sprintf("no package needs the exception for %s any more; delete it", exception.Path)})
		}
	}
	return findings
}

func except(exceptions []Exception, used []bool, path string) bool {
	for i, exception := range exceptions {
		if matches(exception.Path, path) {
			used[i] = true
			return true
		}
	}
	return false
}

func hasPackageComment(p *Package) bool {
	return slices.ContainsFunc(p.Files, func(f *File) bool {
		return !f.Test && f.Syntax.Doc != nil && strings.TrimSpace(f.Syntax.Doc.Text()) != ""
	})
}

func drawer(name string) bool {
	return slices.Contains([]string{"util", "utils", "common", "types", "helper", "helpers", "misc", "shared", "base", "lib"}, name)
}

// CheckTopLevel finds folders in the root that the plan does not have.
func CheckTopLevel(tree *Tree, allowed []string) []Finding {
	var findings []Finding
	for _, name := range tree.TopLevel {
		if !strings.HasPrefix(name, ".") && !slices.Contains(allowed, name) {
			findings = append(findings, Finding{token.Position{Filename: name}, "is new at the top level, which is fixed; put it where it belongs"})
		}
	}
	return findings
}

// CheckDocs finds exported names without a comment, outside commands and tests.
// A comment on a group of constants or variables speaks for its members.
func CheckDocs(tree *Tree) []Finding {
	var findings []Finding
	for _, p := range tree.Packages {
		if p.Name == "main" {
			continue
		}
		for _, file := range p.ours() {
			for _, decl := range file.Syntax.Decls {
				findings = append(findings, tree.undocumented(decl)...)
			}
		}
	}
	return findings
}

func (t *Tree) undocumented(decl ast.Decl) []Finding {
	var findings []Finding
	report := func(node ast.Node, name string) {
		findings = append(findings, t.at(node, "exported %s has no comment; say what it means, its unit and range, and which errors it gives", name))
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !wellKnown(d) {
			report(d, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && d.Doc == nil && s.Comment == nil {
					report(s, s.Name.Name)
				}
			case *ast.ValueSpec:
				exported := slices.ContainsFunc(s.Names, (*ast.Ident).IsExported)
				if exported && s.Doc == nil && s.Comment == nil && d.Doc == nil {
					report(s, s.Names[0].Name)
				}
			}
		}
	}
	return findings
}

// exportedReceiver is true for functions and for methods of exported types.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	var name string
	ast.Inspect(d.Recv.List[0].Type, func(node ast.Node) bool {
		if ident, ok := node.(*ast.Ident); ok && name == "" {
			name = ident.Name
		}
		return name == ""
	})
	return name != "" && unicode.IsUpper(rune(name[0]))
}

// wellKnown methods say nothing new: the interface they satisfy is the comment.
func wellKnown(d *ast.FuncDecl) bool {
	known := []string{"Error", "Unwrap", "Is", "As", "String", "MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText",
		"ServeHTTP", "Len", "Less", "Swap", "Read", "Write", "Close"}
	return d.Recv != nil && slices.Contains(known, d.Name.Name)
}
