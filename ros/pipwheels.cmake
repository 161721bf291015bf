# Only for the ROS 2 wheels of the Python package index: cmake -DCMAKE_PROJECT_INCLUDE=<this file>.
# They export the Python include folder of the machine that built them (/opt/python/cpXY-cpXY/include/pythonX.Y);
# imported targets with a folder that does not exist are an error, so those folders are dropped, after all find_package.
function(_flashrt_drop_missing_includes)
  get_property(_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    get_target_property(_folders ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(_folders)
      foreach(_folder IN LISTS _folders)
        if(_folder MATCHES "^/opt/python/" AND NOT EXISTS "${_folder}")
          list(REMOVE_ITEM _folders "${_folder}")
        endif()
      endforeach()
      set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_folders}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL _flashrt_drop_missing_includes)
