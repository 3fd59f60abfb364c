import { type CompletionModel, nextWords, type Values } from './model.js';

const quote = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/** Options of complete(1) that offer these values. */
function offering(values: Values): string {
  if (typeof values !== 'string') return `-xa ${quote(values.join(' '))}`;
  return { file: '-rF', socket: "-xa '(__vioctl_sockets)'", pci: "-xa '(__vioctl_pci)'", free: '-x' }[values];
}

/** Fish completion: a line for each word of a command, each option and the arguments, under the exact words before them. */
export function fishCompletion(model: CompletionModel): string {
  const lines: string[] = [];
  const word = (prefix: string, name: string, summary: string) =>
    lines.push(`complete -c vioctl -n ${quote(`__vioctl_next ${quote(prefix)}`)} -f -a ${name} -d ${quote(summary)}`);
  for (const { name, summary } of model.groups) word('', name, summary);
  word('', 'help', 'print help of a command');
  word('', 'completion', 'print the completion of a shell');
  for (const shell of model.shells) word('completion', shell, '');
  for (const [prefix, list] of nextWords(model)) for (const { word: name, summary } of list) word(prefix, name, summary);
  for (const { id, options, args, rest } of model.commands) {
    const at = quote(`__vioctl_in ${quote(id)}`);
    for (const { long, short, summary, values } of options) {
      const names = `-l ${long.slice(2)}${short ? ` -s ${short.slice(1)}` : ''}`;
      lines.push(`complete -c vioctl -n ${at} ${names}${values === undefined ? '' : ` ${offering(values)}`} -d ${quote(summary)}`);
    }
    // The arguments of most commands are of one kind; where they differ, all kinds are offered.
    const kinds = new Map(args.map((values) => [JSON.stringify(values), values]));
    if (args.length === 0 || (!rest && args.every((values) => values === 'free'))) lines.push(`complete -c vioctl -n ${at} -f`);
    for (const values of kinds.values()) {
      if (values === 'file') continue; // fish offers files by itself
      lines.push(`complete -c vioctl -n ${at} ${offering(values).replace('-x', '-f')}`);
    }
  }
  return `# fish completion of vioctl (generated: npm run gen)

# The words of the command in front of the cursor, without the program and without help.
function __vioctl_words
    set -l words (commandline -opc)
    set -e words[1]
    test "$words[1]" = help; and set -e words[1]
    printf '%s\\n' $words
end

# True if the words in front of the cursor are exactly those of $argv[1].
function __vioctl_next
    test (string join ' ' -- (__vioctl_words)) = "$argv[1]"
end

# True if the words in front of the cursor begin with the command $argv[1].
function __vioctl_in
    set -l words (commandline -opc)
    set -l id (string split ' ' -- $argv[1])
    test (count $words) -gt (count $id); or return 1
    set -l last (math 1 + (count $id))
    test "$words[2..$last]" = "$argv[1]"
end

function __vioctl_pci
    for device in $VIOCTL_SYSROOT/sys/bus/pci/devices/*
        string replace -r '.*/' '' -- $device
    end
end

function __vioctl_sockets
    for name in (commandline -ct)*
        if test -S $name -o -d $name
            printf '%s\\n' $name
        end
    end
end

${lines.join('\n')}
`;
}
