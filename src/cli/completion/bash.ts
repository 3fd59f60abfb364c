import { type CommandModel, type CompletionModel, nextWords, type Values } from './model.js';

const encode = (values: Values | undefined): string =>
  values === undefined ? '' : typeof values === 'string' ? `@${values}` : values.join('|');

/** One command as three words lists: options, `option=values`, arguments. */
function commandCase(command: CommandModel): string {
  const opts = command.options.flatMap(({ long, short }) => [long, ...(short ? [short] : [])]);
  const vals = command.options.flatMap(({ long, short, values }) =>
    values === undefined ? [] : [long, ...(short ? [short] : [])].map((name) => `${name}=${encode(values)}`),
  );
  const args = command.args.map(encode);
  if (command.rest && args.length > 0) args.push('...');
  return `    '${command.id}')\n      opts='${opts.join(' ')}'\n      vals='${vals.join(' ')}'\n      args='${args.join(' ')}' ;;`;
}

/** Bash completion: a table in case statements and one function that knows no command. */
export function bashCompletion(model: CompletionModel): string {
  const names = model.groups.map(({ name }) => name);
  const next = [...nextWords(model)].map(([prefix, list]) => `    '${prefix}') next='${list.map(({ word }) => word).join(' ')}' ;;`);
  return `# bash completion of vioctl (generated: npm run gen)
# shellcheck shell=bash

# Sets next, the words that can follow the words of a command that is not whole yet.
_vioctl_next() {
  case $1 in
    '') next='${names.join(' ')} help completion' ;;
    completion) next='${model.shells.join(' ')}' ;;
${next.join('\n')}
    *) return 1 ;;
  esac
}

# Sets opts (options), vals (option=values) and args (kinds of arguments) of a command.
_vioctl_command() {
  case $1 in
${model.commands.map(commandCase).join('\n')}
    *) return 1 ;;
  esac
}

# Adds what can stand for the values $1: words joined by |, or @file, @socket, @pci, @free.
_vioctl_values() {
  local name
  case $1 in
    @file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    @socket)
      while IFS= read -r name; do
        [[ -S $name || -d $name ]] && COMPREPLY+=("$name")
      done < <(compgen -f -- "$cur") ;;
    @pci) mapfile -t COMPREPLY < <(cd "\${VIOCTL_SYSROOT:-}/sys/bus/pci/devices" 2>/dev/null && compgen -f -- "$cur") ;;
    @*) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "\${1//|/ }" -- "$cur") ;;
  esac
}

_vioctl() {
  # Bash cuts words at : and =; here they are whole again.
  local -a words=()
  local i word glue=
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ -n $glue || ( $word =~ ^[:=]+$ && \${#words[@]} -gt 0 ) ]]; then
      words[\${#words[@]} - 1]+=$word
      [[ $word =~ ^[:=]+$ ]] && glue=1 || glue=
    else
      words+=("$word")
    fi
  done
  local cur=\${words[-1]} opts='' vals='' args='' next='' id='' entry
  local -a line=("\${words[@]:1:\${#words[@]}-2}")
  COMPREPLY=()
  [[ \${line[0]} == help ]] && line=("\${line[@]:1}")

  # the words of the command
  local used=0
  while _vioctl_next "$id"; do
    if ((used == \${#line[@]})); then
      if [[ $cur == -* ]]; then COMPREPLY=(--help); else mapfile -t COMPREPLY < <(compgen -W "$next" -- "$cur"); fi
      return
    fi
    id+=\${id:+ }\${line[used++]}
  done
  _vioctl_command "$id" || return
  [[ \${words[1]} == help ]] && return

  # options and arguments before the cursor
  local position=0 prev='' ended=
  for word in "\${line[@]:used}"; do
    if [[ $prev ]]; then prev=
    elif [[ $ended ]]; then ((position++))
    elif [[ $word == -- ]]; then ended=1
    elif [[ $word == -?* ]]; then
      for entry in $vals; do [[ \${entry%%=*} == "$word" ]] && prev=$word; done
    else ((position++))
    fi
  done
  if [[ $prev ]]; then
    for entry in $vals; do [[ \${entry%%=*} == "$prev" ]] && _vioctl_values "\${entry#*=}"; done
  elif [[ ! $ended && $cur == --*=* ]]; then
    local option=\${cur%%=*}
    cur=\${cur#*=}
    for entry in $vals; do [[ \${entry%%=*} == "$option" ]] && _vioctl_values "\${entry#*=}"; done
    return # bash replaces only what follows the =
  elif [[ ! $ended && $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$opts" -- "$cur")
  else
    local -a kinds
    read -ra kinds <<<"$args"
    local last=$((\${#kinds[@]} - 1))
    if ((last > 0)) && [[ \${kinds[last]} == ... ]]; then
      unset 'kinds[last]'
      ((position >= last)) && position=$((last - 1))
    fi
    if ((position < \${#kinds[@]})); then
      _vioctl_values "\${kinds[position]}"
    elif [[ $ended ]]; then
      mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
    fi
  fi
  # bash replaces only what follows the last : of the word
  if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
    local before=\${cur%"\${cur##*:}"}
    COMPREPLY=("\${COMPREPLY[@]#"$before"}")
  fi
}
complete -o filenames -F _vioctl vioctl
`;
}
