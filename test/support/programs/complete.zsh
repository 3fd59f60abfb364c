# complete.zsh FPATH LINES FOLDER: in an interactive zsh in FOLDER, types each of LINES and TAB, and prints the words
# that vioctl would get, joined by |. What TAB brings is awaited by typing a mark behind it.
zmodload zsh/zpty || exit 77
cd $3 || exit 1
zpty shell "zsh -f -i"
zpty -w shell "PS1=; PS2=; unsetopt prompt_cr prompt_sp; bindkey -e"
zpty -w shell "fpath=($1 \$fpath); autoload -Uz compinit; compinit -D -u; vioctl() { print -r \"g\"\"ot:<\${(j:|:)@}>\" }"
zpty -w shell "print -r re''ady"
zpty -r -m shell out '*ready*' || exit 1
for line in "${(@f)2}"; do
  zpty -w -n shell "vioctl $line"$'\t'
  zpty -w -n shell $'\n'
  zpty -r -m shell out '*got:<*>*' || exit 1
  print -r -- "${${out##*got:<}%%>*}"
done
zpty -d shell
