package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"skein/node/client"
	"skein/node/gateway/view"
)

func (a *app) groupsCommand() *cobra.Command {
	list := a.groupsList()
	return group("groups", "Show and change groups of robots", list, list, a.groupsCreate(), a.groupsDelete(), a.groupsAdd(), a.groupsRemove())
}

func (a *app) groupsList() *cobra.Command {
	return a.asking(&cobra.Command{Use: "list", Short: "List the groups and who is in them", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Groups(ctx)
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				rows := [][]string{{"NAME", "ROBOTS", "DESCRIPTION"}}
				for _, g := range list.Groups {
					var names []string
					for _, r := range g.Robots {
						names = append(names, r.Name)
					}
					rows = append(rows, []string{g.Name, strings.Join(names, ", "), g.Description})
				}
				table(w, rows)
				freshness(w, list.AsOf)
			})
		}, withRead, withAt)
}

func (a *app) groupsCreate() *cobra.Command {
	var g view.NewGroup
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a group", Args: exactly("NAME")}
	cmd.Flags().StringVar(&g.Description, "description", "", "what it is for")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, args []string) error {
		g.Name = args[0]
		done, err := c.CreateGroup(ctx, g)
		return a.done(done, err, fmt.Sprintf("Group %s is made", args[0]))
	})
}

func (a *app) groupsDelete() *cobra.Command {
	return a.asking(&cobra.Command{Use: "delete NAME", Short: "Delete a group; its robots stay", Args: exactly("NAME")},
		func(ctx context.Context, c *client.Client, args []string) error {
			done, err := c.DeleteGroup(ctx, args[0])
			return a.done(done, err, fmt.Sprintf("Group %s is deleted", args[0]))
		})
}

func (a *app) groupsAdd() *cobra.Command {
	return a.asking(&cobra.Command{Use: "add NAME MEMBER", Short: "Put a robot into a group", Args: exactly("NAME", "MEMBER")},
		func(ctx context.Context, c *client.Client, args []string) error {
			r, err := robot(ctx, c, args[1])
			if err != nil {
				return err
			}
			done, err := c.AddToGroup(ctx, args[0], r.ID)
			return a.done(done, err, fmt.Sprintf("%s (%s) is in group %s", r.Name, r.ID.Short(), args[0]))
		})
}

func (a *app) groupsRemove() *cobra.Command {
	return a.asking(&cobra.Command{Use: "remove NAME MEMBER", Short: "Take a robot out of a group", Args: exactly("NAME", "MEMBER")},
		func(ctx context.Context, c *client.Client, args []string) error {
			r, err := robot(ctx, c, args[1])
			if err != nil {
				return err
			}
			done, err := c.RemoveFromGroup(ctx, args[0], r.ID)
			return a.done(done, err, fmt.Sprintf("%s (%s) is in group %s no longer", r.Name, r.ID.Short(), args[0]))
		})
}

// done says what was decided about a group, unless it was refused.
func (a *app) done(done view.Done, err error, sentence string) error {
	if err != nil {
		return err
	}
	return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "%s, event %d.\n", clean(sentence), done.Receipt.Last) })
}
