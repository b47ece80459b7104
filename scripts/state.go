package scripts

import (
	"go/ast"
	"go/token"
	"slices"
)

// CheckState finds what nodes of one process would share: init functions,
// package-level variables that somebody changes, and those that exist to be
// changed (locks, channels, pools, counters). Variables that are set where they
// are declared and never again are constants in all but name. Tests are free.
//
// It works on names: a variable of an enclosing package that a function also
// declares is taken for the function's own.
func CheckState(tree *Tree) []Finding {
	var findings []Finding
	for _, p := range tree.Packages {
		own := map[string]bool{}
		for _, file := range p.ours() {
			findings = append(findings, tree.declarations(file.Syntax, own)...)
		}
		for _, file := range p.ours() {
			findings = append(findings, tree.changes(file.Syntax, own)...)
		}
	}
	return findings
}

// declarations collects the package's variables into own and reports init
// functions and variables that are made to be changed.
func (t *Tree) declarations(file *ast.File, own map[string]bool) []Finding {
	var findings []Finding
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				findings = append(findings, t.at(d, "init function; build it where it is used, so that each node has its own"))
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				s := spec.(*ast.ValueSpec)
				for _, name := range s.Names {
					own[name.Name] = name.Name != "_"
				}
				if what := madeToChange(importedAs(file), s); what != "" {
					findings = append(findings, t.at(s, "package-level %s %s is shared by all nodes of a process; put it into the struct that owns it", what, s.Names[0].Name))
				}
			}
		}
	}
	return findings
}

// madeToChange names the kind of a variable that has no use unless it changes.
func madeToChange(names map[string]string, s *ast.ValueSpec) string {
	kind := s.Type
	if kind == nil && len(s.Values) > 0 {
		switch value := s.Values[0].(type) {
		case *ast.CompositeLit:
			kind = value.Type
		case *ast.UnaryExpr:
			if literal, ok := value.X.(*ast.CompositeLit); ok {
				kind = literal.Type
			}
		case *ast.CallExpr:
			if callee, ok := value.Fun.(*ast.Ident); ok && len(value.Args) > 0 && (callee.Name == "make" || callee.Name == "new") {
				return "value from " + callee.Name
			}
		}
	}
	switch k := kind.(type) {
	case *ast.ChanType:
		return "channel"
	case *ast.IndexExpr: // atomic.Pointer[T]
		kind = k.X
	case *ast.StarExpr:
		kind = k.X
	}
	if selector, ok := kind.(*ast.SelectorExpr); ok {
		if ident, ok := selector.X.(*ast.Ident); ok && slices.Contains([]string{"sync", "sync/atomic"}, names[ident.Name]) {
			return ident.Name + "." + selector.Sel.Name
		}
	}
	return ""
}

// changes reports statements of functions that change a variable of this package
// or of an imported one.
func (t *Tree) changes(file *ast.File, own map[string]bool) []Finding {
	var findings []Finding
	imported := importedAs(file)
	for _, decl := range file.Decls {
		d, ok := decl.(*ast.FuncDecl)
		if !ok || d.Body == nil {
			continue
		}
		local := declaredIn(d)
		for _, target := range changed(d.Body) {
			what := root(target)
			name := variable(what)
			selector, qualified := what.(*ast.SelectorExpr)
			switch {
			case local[name]:
			case own[name]:
				findings = append(findings, t.at(target, "changes the package-level variable %s, which all nodes of a process share; put it into the struct that owns it", name))
			case qualified && imported[name] != "":
				findings = append(findings, t.at(target, "changes %s.%s of another package, which all nodes of a process share; pass it as an argument", name, selector.Sel.Name))
			}
		}
	}
	return findings
}

// changed lists what is assigned to, counted, deleted from or cleared.
func changed(scope ast.Node) []ast.Expr {
	var targets []ast.Expr
	ast.Inspect(scope, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				targets = append(targets, n.Lhs...)
			}
		case *ast.IncDecStmt:
			targets = append(targets, n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				targets = append(targets, n.Key, n.Value)
			}
		case *ast.CallExpr:
			if callee, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (callee.Name == "delete" || callee.Name == "clear") {
				targets = append(targets, n.Args[0])
			}
		}
		return true
	})
	return slices.DeleteFunc(targets, func(e ast.Expr) bool { return e == nil })
}

// variable is the name of what root left: x, or the x of x.y.
func variable(e ast.Expr) string {
	if selector, ok := e.(*ast.SelectorExpr); ok {
		e = selector.X
	}
	if ident, ok := e.(*ast.Ident); ok {
		return ident.Name
	}
	return ""
}

// root strips indexing, dereferencing and all fields but the first: what is left
// is x, or x.y, where x may be a variable or a package.
func root(e ast.Expr) ast.Expr {
	for {
		switch x := e.(type) {
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.SelectorExpr:
			switch x.X.(type) {
			case *ast.Ident:
				return x
			default:
				e = x.X
			}
		default:
			return e
		}
	}
}

// declaredIn collects the names a function declares: receiver, parameters,
// results, and every := and var inside.
func declaredIn(d *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	add := func(e ast.Expr) {
		if ident, ok := e.(*ast.Ident); ok {
			names[ident.Name] = true
		}
	}
	ast.Inspect(d, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				add(name)
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				add(n.Key)
				add(n.Value)
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				add(name)
			}
		}
		return true
	})
	return names
}
