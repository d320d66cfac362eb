package cli

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What was typed is not repeated where it may be a session ID that was pasted: an
// argument, or a word that begins with a hyphen, as every 64th ID does.

// noArguments is for commands that take none.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasParent():
		return usage("%s takes no arguments, only flags", cmd.Name())
	}
	return usage("unknown command%s (sessionctl help shows the usage)", didYouMean(commandsLike(cmd, args[0])))
}

func commandsLike(root *cobra.Command, word string) []string {
	root.SuggestionsMinimumDistance = near
	return root.SuggestionsFor(word)
}

// near is how many letters a word may be away from what was meant.
const near = 2

func didYouMean(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(words, " or ") + "?"
}

var unknownFlag = regexp.MustCompile(`^unknown flag: --(.*)$`)

// flagError says which flag may have been meant, or which command, of which all
// flags are unknown where it is.
func flagError(cmd *cobra.Command, err error, args []string) error {
	for _, word := range args {
		known := slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == word })
		if !cmd.HasParent() && !known && !strings.HasPrefix(word, "-") && len(commandsLike(cmd, word)) > 0 {
			return noArguments(cmd, []string{word})
		}
	}
	text := err.Error()
	var value *pflag.InvalidValueError
	switch m := unknownFlag.FindStringSubmatch(text); {
	case errors.As(err, &value):
		return usage("the value of --%s cannot be read (sessionctl %s --help shows the usage)", value.GetFlag().Name, cmd.Name())
	case strings.HasPrefix(text, "unknown shorthand flag"):
		return usage("there is no flag of one letter like this: flags begin with -- (sessionctl help shows the usage)")
	case m == nil:
		return usage("%v (sessionctl help shows the usage)", err)
	case len(m[1]) > longestFlag:
		return usage("unknown flag (sessionctl help shows the usage)")
	default:
		return usage("unknown flag: --%s%s (sessionctl help shows the usage)", m[1], didYouMean(flagsLike(cmd, m[1])))
	}
}

// longestFlag is shorter than a session ID.
const longestFlag = 20

// flagsLike returns the flags of a command that begin with a word, or are near it.
func flagsLike(cmd *cobra.Command, word string) (like []string) {
	word = strings.ToLower(word)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && (strings.HasPrefix(f.Name, word) || distance(f.Name, word) <= near) {
			like = append(like, "--"+f.Name)
		}
	})
	return like
}

// distance counts the letters to change, add or take away, of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := corner
			if a[i] != b[j] {
				changed++
			}
			corner = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// columns is how wide a terminal is that nobody has made wider.
const columns = 80

// readable makes help fit a terminal, and an unknown word an error in every place.
func readable(root *cobra.Command) {
	cobra.AddTemplateFunc("wrapped", func(f *pflag.FlagSet) string { return strings.TrimRight(f.FlagUsagesWrapped(columns), " \n") })
	template := root.UsageTemplate()
	for _, set := range []string{"LocalFlags", "InheritedFlags"} {
		template = strings.ReplaceAll(template, "."+set+".FlagUsages | trimTrailingWhitespaces", "wrapped ."+set)
	}
	root.SetUsageTemplate(template)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Short, c.Long = "Show the usage of a command", "Show the usage of a command, of all without one."
			c.Run, c.PersistentPreRunE = nil, func(*cobra.Command, []string) error { return nil }
			c.RunE = func(_ *cobra.Command, words []string) error {
				about, rest, err := root.Find(words)
				if err != nil || len(rest) > 0 {
					return usage("there is no such command%s (sessionctl help shows the usage)", didYouMean(commandsLike(root, words[0])))
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		case "completion":
			c.Short = "Print a script that completes commands in a shell"
			c.Long = "Print a script that completes commands and flags in a shell. Each shell's help\nsays where to put it: sessionctl completion bash --help"
			c.Args = func(_ *cobra.Command, words []string) error {
				if len(words) > 0 {
					return usage("completion knows bash, zsh, fish and powershell")
				}
				return nil
			}
			c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
}
