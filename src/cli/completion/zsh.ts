import { type CommandModel, type CompletionModel, nextWords, type OptionModel, type Values } from './model.js';

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
/** Text inside the brackets of an _arguments specification. */
const bracketed = (text: string): string => text.replace(/[[\]\\:]/g, '\\$&');

const action = (values: Values): string =>
  typeof values !== 'string'
    ? `(${values.join(' ')})`
    : { file: '_files', socket: '_vioctl_sockets', pci: '_vioctl_pci', free: ' ' }[values];

function optionSpec({ long, short, summary, values, repeats }: OptionModel): string {
  const exclusive = repeats ? '*' : short ? `(${short} ${long})` : '';
  const help = `[${bracketed(summary)}]`;
  const value = values === undefined ? '' : `:value:${action(values)}`;
  if (!short) return quote(`${exclusive}${long}${values === undefined ? '' : '='}${help}${value}`);
  return `${quote(exclusive)}{${short},${long}${values === undefined ? '' : '='}}${quote(help + value)}`;
}

function commandFunction(command: CommandModel): string {
  const specs = command.options.map(optionSpec);
  command.args.forEach((values, i) => {
    const last = i === command.args.length - 1;
    specs.push(quote(last && command.rest ? `*:argument:${action(values)}` : `${i + 1}:argument:${action(values)}`));
  });
  const behind = command.passthrough && !command.rest ? [quote('*:: :_normal')] : [];
  return `    ${quote(command.id)})\n      _arguments -s -S : \\\n        ${[...specs, ...behind].join(' \\\n        ')} ;;`;
}

/** Zsh completion: _describe for the words of a command, _arguments for what follows. */
export function zshCompletion(model: CompletionModel): string {
  const describe = (list: { word: string; summary: string }[]) =>
    list.map(({ word, summary }) => quote(`${word}:${summary.replaceAll(':', '\\:')}`)).join(' ');
  const groups = model.groups.map(({ name, summary }) => ({ word: name, summary }));
  const next = [...nextWords(model)].map(([prefix, list]) => `    ${quote(prefix)}) next=(${describe(list)}) ;;`);
  return `#compdef vioctl
# zsh completion of vioctl (generated: npm run gen)

_vioctl_pci() {
  local -a devices
  devices=(\${VIOCTL_SYSROOT:-}/sys/bus/pci/devices/*(N:t))
  compadd -a devices
}

_vioctl_sockets() {
  _files -g '*(=,/)'
}

# Sets next, the words that can follow the words of a command that is not whole yet.
_vioctl_next() {
  case $1 in
    '') next=(${describe([...groups, { word: 'help', summary: 'print help of a command' }, { word: 'completion', summary: 'print the completion of a shell' }])}) ;;
    completion) next=(${model.shells.join(' ')}) ;;
${next.join('\n')}
    *) return 1 ;;
  esac
}

_vioctl_command() {
  case $1 in
${model.commands.map(commandFunction).join('\n')}
    *) return 1 ;;
  esac
}

_vioctl() {
  local -a next
  local id= help=
  integer used=2
  [[ $words[2] == help ]] && help=1 used=3
  while _vioctl_next "$id"; do
    if (( used == CURRENT )); then
      if [[ $words[CURRENT] == -* ]]; then compadd -- --help; else _describe -t commands 'command' next; fi
      return
    fi
    id+=\${id:+ }$words[used]
    (( used++ ))
  done
  [[ -n $help ]] && return 1
  words=(vioctl "\${(@)words[used,-1]}")
  (( CURRENT -= used - 2 ))
  _vioctl_command "$id"
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _vioctl "$@"; else compdef _vioctl vioctl; fi
`;
}
