package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"skein/mesh/ident"
)

// checkKeys looks at the node's key, whether the certificate fits it, and
// the other secrets where there are any.
func checkKeys(o Options) []Check {
	if o.KeyFile == "" {
		return []Check{{"keys.node", Skip, "no data directory was named", "skein doctor --data DIR"}}
	}
	key, err := ident.LoadKey(o.KeyFile)
	checks := []Check{judgeKey(o, key, err)}
	if err == nil {
		checks = append(checks, checkMembership(o, key))
	}
	return append(checks, checkPrivate(o.PrivateFiles)...)
}

func judgeKey(o Options, key ident.Key, err error) Check {
	const name = "keys.node"
	switch {
	case err == nil:
		return Check{name, OK, fmt.Sprintf("%s is the key of node %s", o.KeyFile, key.ID()), ""}
	case errors.Is(err, fs.ErrNotExist):
		return Check{name, Warn, "this robot has no key yet: it has not joined a fleet", fmt.Sprintf("skein join TOKEN --data %s", o.Data)}
	case errors.Is(err, fs.ErrPermission):
		return Check{name, Skip, fmt.Sprintf("this user may not read %s", o.KeyFile), asNodesUser}
	case errors.Is(err, ident.ErrKeyExposed):
		return Check{name, Fail, fmt.Sprintf("%s can be read by others", o.KeyFile), "chmod 600 " + o.KeyFile}
	case errors.Is(err, ident.ErrKeyDamaged):
		return Check{name, Fail, fmt.Sprintf("%s is damaged", o.KeyFile),
			fmt.Sprintf("restore it from a backup; without one: mv %s %s.damaged && skein join TOKEN", o.KeyFile, o.KeyFile)}
	}
	return Check{name, Fail, oneLine(err), "ls -l " + o.KeyFile}
}

// checkMembership tells whether the stored certificate is this key's and leads
// to the fleet's root. Whether the robot was revoked since, only the fleet knows.
func checkMembership(o Options, key ident.Key) Check {
	const name = "keys.certificate"
	rejoin := fmt.Sprintf("mv %s %s.bad && skein join TOKEN --data %s", o.MembershipFile, o.MembershipFile, o.Data)
	m, err := ident.LoadMembership(o.MembershipFile, key.ID())
	switch {
	case err == nil:
		return Check{name, OK, fmt.Sprintf("admitted to fleet %s (%s)", m.FleetName, m.Fleet()), ""}
	case errors.Is(err, fs.ErrNotExist):
		return Check{name, Warn, "this robot has not joined a fleet yet", fmt.Sprintf("skein join TOKEN --data %s", o.Data)}
	case errors.Is(err, fs.ErrPermission):
		return Check{name, Skip, fmt.Sprintf("this user may not read %s", o.MembershipFile), asNodesUser}
	}
	return Check{name, Fail, oneLine(err), rejoin}
}

// checkPrivate only looks at the mode: who can read these can command the fleet.
func checkPrivate(paths []string) []Check {
	const name = "keys.private"
	var checks []Check
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if info.Mode().Perm()&0o077 != 0 {
			checks = append(checks, Check{name, Fail, fmt.Sprintf("%s (mode %04o) can be read by others: it commands the fleet", path, info.Mode().Perm()), "chmod 600 " + path})
			continue
		}
		checks = append(checks, Check{name, OK, path + " is private", ""})
	}
	return checks
}

func checkConfig(path string, err error) Check {
	const name = "config"
	switch {
	case path == "":
		return Check{name, OK, "no configuration file was named: all settings have their defaults", ""}
	case err != nil:
		return Check{name, Fail, oneLine(err), "skein run --example shows every key; then edit " + path}
	}
	return Check{name, OK, path + " is valid", ""}
}
