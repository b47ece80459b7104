package scripts

import (
	"go/ast"
	"slices"
	"strings"
)

// Pure names a package whose output depends on its arguments alone, so that a
// simulator replays it exactly: time and chance come in as arguments, effects
// go out as values.
type Pure struct {
	// Path is relative to the module.
	Path string
	// Why is what would break.
	Why string
}

// impureImports are packages that reach the world, share memory between
// goroutines, or ask the system for chance; with them everything below them,
// except valuesOnly.
func impureImports() []string {
	return []string{"context", "crypto/rand", "io/ioutil", "log", "net", "os", "plugin", "runtime", "sync", "syscall", "testing", "unsafe"}
}

// valuesOnly lie below an impure folder but only compute.
func valuesOnly() []string { return []string{"net/netip", "net/url"} }

// impureTime are the functions of package time that read or wait for a clock,
// and those that depend on this machine's time zone.
func impureTime() []string {
	return []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local", "LoadLocation"}
}

// CheckPurity finds what pure packages must not have: impure imports, clocks,
// the global random source, goroutines and channels. Tests of a pure package
// may use them.
func CheckPurity(tree *Tree, pure []Pure) []Finding {
	var findings []Finding
	for _, p := range tree.Packages {
		i := slices.IndexFunc(pure, func(rule Pure) bool { return rule.Path == p.Path })
		if i < 0 {
			continue
		}
		for _, file := range p.Files {
			if !file.Test {
				findings = append(findings, impurities(tree, p.Path, pure[i].Why, file.Syntax)...)
			}
		}
	}
	return findings
}

func impurities(tree *Tree, name, why string, file *ast.File) []Finding {
	var findings []Finding
	report := func(node ast.Node, what string) {
		findings = append(findings, tree.at(node, "%s is pure and %s; %s", name, what, why))
	}
	for _, spec := range file.Imports {
		if of := importPath(spec); impureImport(of) {
			report(spec, "must not import "+of)
		}
	}
	names := importedAs(file)
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.GoStmt:
			report(n, "must not start a goroutine")
		case *ast.ChanType:
			report(n, "must not use a channel")
		case *ast.SelectorExpr:
			if what := impureUse(names, n); what != "" {
				report(n, what)
			}
		}
		return true
	})
	return findings
}

func impureImport(of string) bool {
	if slices.Contains(valuesOnly(), of) {
		return false
	}
	return slices.ContainsFunc(impureImports(), func(folder string) bool { return matches(folder+"/...", of) })
}

// impureUse says what is wrong with naming a member of an imported package.
func impureUse(names map[string]string, selector *ast.SelectorExpr) string {
	ident, ok := selector.X.(*ast.Ident)
	if !ok {
		return ""
	}
	member := selector.Sel.Name
	switch names[ident.Name] {
	case "time":
		if slices.Contains(impureTime(), member) {
			return "must not use time." + member + "; take now as an argument"
		}
	case "math/rand", "math/rand/v2":
		// What makes a source of its own is fine, what draws from the global one
		// is not. Types are fine as well.
		if !strings.HasPrefix(member, "New") && !slices.Contains([]string{"Rand", "Source", "Source64", "PCG", "ChaCha8", "Zipf"}, member) {
			return "must not use the global random source (rand." + member + "); take a *rand.Rand as an argument"
		}
	}
	return ""
}
