wrote()
return answer('ready')
