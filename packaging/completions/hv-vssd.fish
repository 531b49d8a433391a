# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hv_vssd_global_optspecs
    string join \n h/help V/version
end

function __fish_hv_vssd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hv_vssd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hv_vssd_using_subcommand
    set -l cmd (__fish_hv_vssd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -s h -l help -d 'Print help'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -s V -l version -d 'Print version'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "run" -d 'Serve the host: this is what the systemd service runs'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "check" -d 'Show what the host would get now, and what stands in its way'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "plan" -d 'Show what a checkpoint would freeze, in which order, what not and why'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "config" -d 'Show what is configured and where, or check it'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "freeze" -d 'Freeze as a checkpoint would, hold for a time, thaw, and tell what it cost'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "thaw" -d 'Thaw what was left frozen, and say what was done for each'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "status" -d 'Show how the running agent is, its last checkpoints and its counters'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "demo" -d 'See it work: a whole checkpoint on scratch disks, with a simulated host'
complete -c hv-vssd -n "__fish_hv_vssd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand run" -l device -d 'The driver\'s character device' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand run" -l config -d 'Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand run" -s v -l verbose -d 'Also log each step and each file system'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand check" -l config -d 'Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand check" -l json -d 'Print JSON for a program'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand plan" -l config -d 'Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand plan" -l json -d 'Print JSON for a program instead of a table'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand plan" -s a -l all -d 'List every file system left out, also those that are on no disk'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand config" -l config -d 'Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand config" -l show -d 'Show the values in force; this is what it does without an option, too'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand config" -l check -d 'Only say what is wrong, all of it; exit status 2 if anything is'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand config" -l json -d 'Print JSON for a program'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand freeze" -l for -d 'How long to hold, such as 500ms, 5s or 2m; at most limits.hold of the configuration' -r
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand freeze" -l config -d 'Configuration to use instead of /etc/hv-vssd/config.toml, with the drop-ins in FILE.d' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand freeze" -l report -d 'Draw what happened to each file system on a time line'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand freeze" -l json -d 'Print the report as JSON for a program'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand freeze" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand thaw" -l all -d 'Thaw every file system that a checkpoint would freeze, whoever froze it'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand thaw" -l json -d 'Print JSON for a program'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand thaw" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand status" -s w -l watch -d 'Show it again and again, every so many seconds, until interrupted' -r
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand status" -l socket -d 'The agent\'s control socket' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand status" -l json -d 'Print JSON for a program instead of tables'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand status" -l prometheus -d 'Print metrics in the text format of Prometheus'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand status" -s a -l all -d 'Show the file systems of all checkpoints, not only of the last one, and long paths whole'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand demo" -l dir -d 'Where the scratch images are made; they take some 100 MB' -r -F
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand demo" -s v -l verbose -d 'Also show the agent\'s log'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "run" -d 'Serve the host: this is what the systemd service runs'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "check" -d 'Show what the host would get now, and what stands in its way'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "plan" -d 'Show what a checkpoint would freeze, in which order, what not and why'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "config" -d 'Show what is configured and where, or check it'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "freeze" -d 'Freeze as a checkpoint would, hold for a time, thaw, and tell what it cost'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "thaw" -d 'Thaw what was left frozen, and say what was done for each'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "status" -d 'Show how the running agent is, its last checkpoints and its counters'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "demo" -d 'See it work: a whole checkpoint on scratch disks, with a simulated host'
complete -c hv-vssd -n "__fish_hv_vssd_using_subcommand help; and not __fish_seen_subcommand_from run check plan config freeze thaw status demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
